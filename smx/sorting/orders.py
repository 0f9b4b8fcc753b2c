"""The order of channels, by unification.

Every axis of every value has an order: segments, one after the other, each of them a class of channels, or a class
whose every channel is a block of neighbouring entries (as after Flatten). Operators tie the orders of axes together;
where one can't follow a change, the classes are pinned, and the reason is kept. A class that is free may be permuted:
if every weight follows, the network computes the same function.

`smx.sort` uses it on the values of a dry run in PyTorch, the exporter on those of an ONNX graph.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol


class Value(Protocol):
    """Something with axes: hashed by identity; a length that is not fixed is no int, no shape is None."""

    @property
    def shape(self) -> Any:
        """The lengths of the axes."""


@dataclass(eq=False)
class Channels:
    """A class of axes that must all be permuted alike.

    Attributes:
        length: how many channels.
        bound: what the class turned out to consist of (another class, or several); None while it stands for itself.
        pinned: why it must keep its order; None while it is free.
        permutation: of `length`, the new order's old indices; None keeps the order.
    """

    length: int
    bound: tuple[Segment, ...] | None = None
    pinned: str | None = None
    permutation: list[int] | None = None


class Segment(NamedTuple):
    """A class as a part of an axis, each of its channels a block of neighbouring entries."""

    channels: Channels
    block: int

    @property
    def length(self) -> int:
        """How many entries of the axis it covers."""
        return self.channels.length * self.block


Order = tuple[Segment, ...]


class Orders:
    """The orders of all axes of a network's values."""

    def __init__(self) -> None:
        self._channels: dict[tuple[Value, int], Channels] = {}

    def of(self, value: Value, axis: int) -> Order:
        """Return the order of an axis; without segments where its length is not fixed, as for the batch."""
        length = value.shape[axis] if value.shape is not None else None
        if not isinstance(length, int):
            return ()
        axis %= len(value.shape)
        return resolve((Segment(self._channels.setdefault((value, axis), Channels(length)), 1),))

    def tie(self, a: Order, b: Order) -> None:
        """Demand that two axes have the same order."""
        a, b = resolve(a), resolve(b)
        if a == b:
            return
        if not a or not b:
            self.pin((*a, *b), "it is tied to an axis whose length is not fixed")
        elif [(s.channels.length, s.block) for s in a] == [(s.channels.length, s.block) for s in b]:
            for (mine, _), (other, _) in zip(a, b, strict=True):
                self._bind(mine, (Segment(other, 1),))
        elif len(a) == 1 and a[0].block == 1:
            self._bind(a[0].channels, b)
        elif len(b) == 1 and b[0].block == 1:
            self._bind(b[0].channels, a)
        else:
            self.pin((*a, *b), "its channels are grouped in two ways that do not fit")

    def pin(self, order: Order, reason: str) -> None:
        """Demand that an axis keeps its order."""
        for channels, _ in resolve(order):
            channels.pinned = channels.pinned or reason

    def _bind(self, channels: Channels, order: Order) -> None:
        order = resolve(order)
        if any(segment.channels is channels for segment in order):
            if order != (Segment(channels, 1),):
                self.pin(order, "its channels are tied to a part of themselves")
            return
        if channels.pinned:
            self.pin(order, channels.pinned)
        channels.bound = order


def resolve(order: Order) -> Order:
    """Return an order in terms of classes that stand for themselves."""
    found: list[Segment] = []
    left = list(reversed(order))
    while left:
        channels, block = left.pop()
        if channels.bound is None:
            found.append(Segment(channels, block))
        else:
            left += [Segment(inner, inner_block * block) for inner, inner_block in reversed(channels.bound)]
    return tuple(found)


def indices(order: Order) -> list[int] | None:
    """Return the old index of every entry of an axis, or None if its order stays."""
    order = resolve(order)
    if all(channels.permutation is None for channels, _ in order):
        return None
    found: list[int] = []
    for segment in order:
        channels, block = segment
        start = len(found)
        kept = range(channels.length) if channels.permutation is None else channels.permutation
        found += [start + old * block + inner for old in kept for inner in range(block)]
    return found


def sort_channels(keyed: Iterable[tuple[Order, Sequence[int]]]) -> int:
    """Permute every free class so that the keys along the axes ascend; equal keys keep their order.

    Args:
        keyed: axes, and a key for each of their entries; where several share a class, the first is sorted, the next one
            within what the first leaves equal.

    Returns:
        How many classes have a permutation now.
    """
    keys: dict[Channels, list[Sequence[int]]] = defaultdict(list)
    for order, key in keyed:
        start = 0
        for segment in resolve(order):
            part = key[start : start + segment.length]
            keys[segment.channels] += [part[inner :: segment.block] for inner in range(segment.block)]
            start += segment.length
    free = {channels: list(zip(*parts, strict=True)) for channels, parts in keys.items() if not channels.pinned}
    for channels, rows in free.items():
        channels.permutation = sorted(range(channels.length), key=rows.__getitem__)
    return len(free)
