"""Which axes of a network's tensors must be permuted alike, by unification.

The order of an axis is a sequence of segments. Each segment stands for a class of axes that have the same order, or for
such a class in which every entry became a block of neighbouring entries, as after Flatten. Operators `tie` the orders
of axes together. An operator that looks at the order of an axis pins it, and the reason is kept. A class that is not
pinned may be permuted: if all tensors of the class follow, the network computes the same function.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor


@dataclass(eq=False)
class AxisClass:
    """A class of axes that must all be permuted alike.

    Attributes:
        length: how many entries the axes have.
        bound: the classes that this one turned out to consist of; None while it stands for itself.
        pinned: why the order must stay; None while it is free.
        permutation: (length,), the old index of each entry in the new order; None keeps the order.
    """

    length: int
    bound: tuple[Segment, ...] | None = None
    pinned: str | None = None
    permutation: list[int] | None = None


class Segment(NamedTuple):
    """A class as a part of an axis; each of its entries is a block of `block` neighbouring entries there."""

    axes: AxisClass
    block: int


Order = tuple[Segment, ...]


class Orders:
    """The orders of all axes of a network's tensors; tensors are told apart by identity."""

    def __init__(self) -> None:
        self._classes: dict[tuple[Tensor, int], AxisClass] = {}

    def of(self, tensor: Tensor, axis: int) -> Order:
        """Return the order of an axis; an axis that was not seen before is free."""
        axis %= tensor.dim()
        return resolve((Segment(self._classes.setdefault((tensor, axis), AxisClass(tensor.shape[axis])), 1),))

    def tie(self, a: Order, b: Order) -> None:
        """Demand that two axes have the same order."""
        a, b = resolve(a), resolve(b)
        if a == b:
            return
        if [(s.axes.length, s.block) for s in a] == [(s.axes.length, s.block) for s in b]:
            for (mine, _), (other, _) in zip(a, b, strict=True):
                # The segment before may have bound these, where a class stands twice on an axis.
                self._tie_classes(resolve((Segment(mine, 1),)), resolve((Segment(other, 1),)))
        elif len(a) == 1 and a[0].block == 1:
            self._bind(a[0].axes, b)
        elif len(b) == 1 and b[0].block == 1:
            self._bind(b[0].axes, a)
        else:
            self.pin((*a, *b), "its channels are grouped in two ways that do not fit")

    def _tie_classes(self, a: Order, b: Order) -> None:
        """Tie what two classes of one length stand for by now."""
        if len(a) == len(b) == 1:
            self._bind(a[0].axes, b)
        else:
            self.tie(a, b)

    def pin(self, order: Order, reason: str) -> None:
        """Demand that an axis keeps its order."""
        for axes, _ in resolve(order):
            axes.pinned = axes.pinned or reason

    def pin_axes(self, tensor: Tensor, axes: Iterable[int], reason: str) -> None:
        """Demand that some axes of a tensor keep their order."""
        for axis in axes:
            self.pin(self.of(tensor, axis), reason)

    def pin_all(self, tensors: Iterable[Tensor], reason: str) -> None:
        """Demand that all axes of the tensors keep their order."""
        for tensor in tensors:
            self.pin_axes(tensor, range(tensor.dim()), reason)

    def _bind(self, axes: AxisClass, order: Order) -> None:
        order = resolve(order)
        if any(segment.axes is axes for segment in order):
            if order != (Segment(axes, 1),):
                self.pin(order, "its channels are tied to a part of themselves")
            return
        if axes.pinned:
            self.pin(order, axes.pinned)
        axes.bound = order


def resolve(order: Order) -> Order:
    """Return an order in terms of classes that stand for themselves and have entries."""
    resolved: list[Segment] = []
    stack = list(reversed(order))
    while stack:
        axes, block = stack.pop()
        if axes.bound is None:
            resolved += [Segment(axes, block)] * (axes.length > 0)
        else:
            stack += [Segment(inner, inner_block * block) for inner, inner_block in reversed(axes.bound)]
    return tuple(resolved)


def indices(order: Order) -> list[int] | None:
    """Return the old index of every entry of an axis, or None if its order stays."""
    order = resolve(order)
    if all(axes.permutation is None for axes, _ in order):
        return None
    old: list[int] = []
    for axes, block in order:
        start = len(old)
        permutation = range(axes.length) if axes.permutation is None else axes.permutation
        old += [start + entry * block + inner for entry in permutation for inner in range(block)]
    return old


def sort_classes(keyed: Iterable[tuple[Order, Sequence[int]]]) -> None:
    """Permute every class that is free so that the keys along the axes ascend; equal keys keep their order.

    Args:
        keyed: axes, and a key for each of their entries. Where several axes share a class, the first of them is sorted,
            and the next one within the entries whose keys are equal in the first.
    """
    keys: dict[AxisClass, list[Sequence[int]]] = defaultdict(list)
    for order, key in keyed:
        start = 0
        for axes, block in resolve(order):
            part = key[start : start + axes.length * block]
            keys[axes] += [part[inner::block] for inner in range(block)]
            start += axes.length * block
    for axes, parts in keys.items():
        if not axes.pinned:
            rows = list(zip(*parts, strict=True))
            ascending = sorted(range(axes.length), key=rows.__getitem__)
            axes.permutation = None if ascending == list(range(axes.length)) else ascending
