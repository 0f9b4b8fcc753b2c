"""Inputs like an example, of another batch, length or image size: an axis that varies is never that of neurons."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_unflatten

Axes = frozenset[tuple[int, int]]
"""Axes of inputs that change together: the number of the tensor among the inputs, and the axis."""


def variations(
    arguments: tuple[Any, ...], runs: Callable[[tuple[Any, ...]], Any], *, lengths: bool = True
) -> list[tuple[tuple[Any, ...], Any]]:
    """Return arguments in which some axes have another length and which the network takes, and what it returns.

    1. Another batch: axis 0 of every tensor that has the first one's length there, or of the first one alone.
    2. For each other length: all axes that have it. If the network does not take that, each of them alone.

    Args:
        arguments: of the network's forward.
        runs: the network; it may raise anything.
        lengths: whether to change more than the batch. A network without weights takes any number of neurons.
    """
    leaves, structure = tree_flatten(arguments)
    shapes = {i: x.shape for i, x in enumerate(leaves) if isinstance(x, Tensor)}
    found = []

    def taken(axes: Axes, sizes: Iterator[int]) -> bool:
        for size in sizes:
            changed = [_changed(x, [axis for j, axis in axes if j == i], size) for i, x in enumerate(leaves)]
            candidate = tree_unflatten(changed, structure)
            try:
                found.append((candidate, runs(candidate)))
            except Exception:  # whatever a forward may raise for an input that does not fit
                continue
            return True
        return False

    batch = next((shape[0] for shape in shapes.values() if len(shape)), 0)
    batched = [(i, 0) for i, shape in shapes.items() if shape[:1] == (batch,)] if batch else []
    if batched and not taken(frozenset(batched), iter((batch + 1,))):
        taken(frozenset(batched[:1]), iter((batch + 1,)))
    inner = shapes.items() if lengths else ()
    others = [(i, axis) for i, shape in inner for axis in range(1, len(shape)) if shape[axis] > 1]
    for length in dict.fromkeys(shapes[i][axis] for i, axis in others):
        axes = [(i, axis) for i, axis in others if shapes[i][axis] == length]
        shorter = (length + 1) // 2
        if not taken(frozenset(axes), iter(dict.fromkeys((shorter, length - 1, length + 1)))):
            numbers = dict.fromkeys(axis for _, axis in axes)
            for number in numbers if len(numbers) > 1 else ():
                taken(frozenset(place for place in axes if place[1] == number), iter((shorter,)))
    return found


def _changed(x: Any, axes: list[int], size: int) -> Any:
    """Shorten axes of a tensor, or lengthen them by starting again with their first entry."""
    for axis in axes:
        x = x.index_select(axis, torch.arange(size, device=x.device) % x.shape[axis])
    return x


def varying(shapes: list[torch.Size], others: list[torch.Size]) -> set[int]:
    """Return the axes in which the shapes of one activation's inputs differ between two runs."""
    pairs = [(a, b) for a, b in zip(shapes, others, strict=False) if len(a) == len(b)]
    return {axis for a, b in pairs for axis in range(len(a)) if a[axis] != b[axis]}
