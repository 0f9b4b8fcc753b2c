"""On which axis the neurons of a value are: it follows from the operator that made the value.

A layer with weights makes neurons: on the last axis (`linear`, a product with a matrix), on axis 1 (`convolution`). All
other operators carry the axis from their inputs on, by the rules by which `smx.sort` moves permutations.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

from torch import Tensor

from smx.sorting import rules
from smx.sorting.axes import AxisClass, Orders
from smx.sorting.rules import Call, Rule


class Neurons(NamedTuple):
    """The axis of the neurons, negative where it counts from the end, and how many they are."""

    axis: int
    size: int


RECURRENT = frozenset(f"{kind}{form}" for kind in ("lstm", "gru", "rnn_tanh", "rnn_relu") for form in ("", "_cell"))
_LAST = ("linear", "embedding", "bilinear", "_trilinear", *RECURRENT)
_MATRICES = ("matmul", "mm", "bmm", "addmm", "baddbmm")
_CHANNELS = ("batch_norm", "instance_norm", "group_norm")
_STAY = """cumprod cumsum flip gather index_copy index_select logcumsumexp masked_scatter roll scatter scatter_add sort
    topk tril triu"""
_SAME_AXES = frozenset(_STAY.split())
"""Operators without a rule of sorting, whose outputs have the axes of their first input."""


def created(call: Call, is_weight: Callable[[Tensor], bool]) -> Neurons | None:
    """Return the neurons that a layer with weights makes; None where its weights have no axis of neurons."""
    y = call.outputs[0]
    axis: int | None = None
    if call.name in _LAST and y.dim():
        axis = -1 if call.name != "linear" or call.arguments["weight"].dim() == 2 else None
    elif call.name == "convolution":
        axis = 1
    elif call.name in _MATRICES:
        left, right = call.inputs[-2:]
        if min(left.dim(), right.dim()) > 1:
            axis = -1 if is_weight(right) else -2  # weights on the left mix rows
    return None if axis is None else Neurons(axis, y.shape[axis])


def normalized(call: Call) -> Neurons | None:
    """Return the neurons of a normalization, which has two numbers for each of them; None where it does not tell."""
    y = call.outputs[0]
    if call.name in _CHANNELS:
        return Neurons(1, y.shape[1])
    sizes = call.arguments.get("normalized_shape") or ()
    return Neurons(-1, y.shape[-1]) if len(sizes) == 1 else None


def carried(
    call: Call, rule: Rule | None, known: Sequence[Neurons | None], is_weight: Callable[[Tensor], bool]
) -> list[Neurons | None]:
    """Return where the neurons of the inputs are in each output; None where that is not known, or in two places.

    Args:
        call: of an operator that makes no neurons.
        rule: its rule of sorting, None if there is none.
        known: the neurons of each input of the call.
        is_weight: tells whether an input is a weight, or made of weights alone.
    """
    if not any(known) or not call.outputs:
        return [None] * len(call.outputs)
    if rule is rules.reshape:
        x, y = call.ends
        return [_reshaped(known[0], x.shape, y.shape)]
    if rule is None and call.name not in _SAME_AXES:
        return [None] * len(call.outputs)
    orders = Orders()
    if rule is not None:
        rule(orders, call)
    found = []
    for y in call.outputs:
        places = set()
        for x, neurons in zip(call.inputs, known, strict=True):
            if neurons is not None:
                axis = _moved(orders, rule, x, neurons.axis % x.dim(), y)
                whole = axis is not None and neurons.size == x.shape[neurons.axis]
                count = y.shape[axis] if axis is not None and whole else neurons.size
                places.add(None if axis is None else Neurons(_signed(axis, y.dim(), neurons.axis), count))
        if rule is rules.elementwise:
            places |= _spanned(call, y, is_weight)
        places.discard(None)
        axes = {neurons.axis % y.dim() for neurons in places if neurons}
        found.append(next(iter(places)) if len(axes) == 1 else None)
    return found


def _moved(orders: Orders, rule: Rule | None, x: Tensor, axis: int, y: Tensor) -> int | None:
    """Return the axis of y that is tied to one of x; for elementwise operators also if it has a length of 1."""
    if rule in (None, rules.elementwise):
        there = axis + y.dim() - x.dim()
        return there if y.dim() and there >= 0 and x.shape[axis] == y.shape[there] else None
    own = _classes(orders, x, axis)
    tied = [there for there in range(y.dim()) if own & _classes(orders, y, there)]
    return tied[0] if len(tied) == 1 else None


def _classes(orders: Orders, tensor: Tensor, axis: int) -> set[AxisClass]:
    return {segment.axes for segment in orders.of(tensor, axis)}


def _spanned(call: Call, y: Tensor, is_weight: Callable[[Tensor], bool]) -> set[Neurons | None]:
    """Find an axis that weights alone have, as in x[..., None] * w: its entries are neurons."""
    shapes: dict[bool, list[list[int]]] = {True: [], False: []}
    for x in call.inputs:
        shapes[is_weight(x)].append([1] * (y.dim() - x.dim()) + list(x.shape))
    return {
        Neurons(axis - y.dim(), length)
        for axis, length in enumerate(y.shape)
        if length > 1 and shapes[False] and all(shape[axis] == 1 for shape in shapes[False])
        if any(shape[axis] == length for shape in shapes[True])
    }


def _reshaped(neurons: Neurons | None, old: Sequence[int], new: Sequence[int]) -> Neurons | None:
    """Follow neurons through a view: their axis may stay, become one with others, or be split and put together again.

    Their size stays as it was when an axis is split, which tells that they are on several axes.
    """
    if neurons is None:
        return None
    axis = neurons.axis % len(old)
    whole = neurons.size == old[axis]
    for olds, news in _groups(old, new):
        if axis not in olds:
            continue
        if old[axis] > 1:
            olds, news = ([i for i in axes if shape[i] > 1] for axes, shape in ((olds, old), (news, new)))
        if not news or min(len(olds), len(news)) > 1:
            return None
        count = neurons.size
        if len(news) == 1 and len(olds) > 1:
            count = new[news[0]]
            if (not whole and count != neurons.size) or old[axis] == 1:
                return None
        return Neurons(_signed(news[0], len(new), neurons.axis), count)
    return None


def _groups(old: Sequence[int], new: Sequence[int]) -> list[tuple[list[int], list[int]]]:
    """Pair the axes of two shapes of one size: neighbouring axes whose lengths have the same product."""
    groups = []
    i = j = 0
    while i < len(old) and j < len(new):
        olds, news = [i], [j]
        while (a := math.prod(old[k] for k in olds)) != (b := math.prod(new[k] for k in news)):
            if a < b:
                olds.append(olds[-1] + 1)
            else:
                news.append(news[-1] + 1)
            if olds[-1] >= len(old) or news[-1] >= len(new):  # there are no entries at all
                return []
        groups.append((olds, news))
        i, j = olds[-1] + 1, news[-1] + 1
    return groups


def _signed(axis: int, rank: int, before: int) -> int:
    """Return an axis as it was counted before, if it is still in that place."""
    last = axis == rank - 1 and rank > 2
    return before if before in (axis, axis - rank) and not last else shown(axis, rank)


def shown(axis: int, rank: int) -> int:
    """Return an axis as it is said: the last one of several counts from the end."""
    return -1 if axis == rank - 1 > 1 else axis
