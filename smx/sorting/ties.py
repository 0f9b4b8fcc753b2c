"""Which axes must share their order: what kinds of operators have in common, in PyTorch as in ONNX.

Each function is given the `Orders`, an operator's inputs and its output, all of them with shapes. What is not tied by
any of them must be pinned: an operator that looks at an order can't follow a permutation.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

from smx.sorting.orders import Order, Orders, Segment, Value, resolve


def pin_all(orders: Orders, values: Iterable[Value], reason: str) -> None:
    """Pin every axis of the values."""
    for value in values:
        pin_axes(orders, value, range(_rank(value)), reason)


def pin_axes(orders: Orders, value: Value, axes: Iterable[int], reason: str) -> None:
    """Pin some axes of a value."""
    for axis in axes:
        orders.pin(orders.of(value, axis), reason)


def same(orders: Orders, x: Value, y: Value, axes: Iterable[int] | None = None) -> None:
    """y = f(x), elementwise or along an axis whose order f does not look at, as Softmax: some axes, or all of them."""
    for axis in range(_rank(y)) if axes is None else axes:
        orders.tie(orders.of(x, axis), orders.of(y, axis))


def elementwise(orders: Orders, inputs: Iterable[Value], y: Value) -> None:
    """y = f(a, b, ...) with broadcasting: every axis of y ties the axes that it is made of."""
    for x in inputs:
        shift = _rank(y) - _rank(x)
        for axis in range(_rank(x)):
            if x.shape[axis] != 1:
                orders.tie(orders.of(x, axis), orders.of(y, axis + shift))


def matmul(orders: Orders, a: Value, b: Value, y: Value) -> None:
    """y[..., m, n] = a[..., m, k] b[..., k, n], none of them a vector."""
    orders.tie(orders.of(a, -1), orders.of(b, -2))
    orders.tie(orders.of(a, -2), orders.of(y, -2))
    orders.tie(orders.of(b, -1), orders.of(y, -1))
    for x in (a, b):
        shift = _rank(y) - _rank(x)
        for axis in range(_rank(x) - 2):
            if x.shape[axis] != 1:
                orders.tie(orders.of(x, axis), orders.of(y, axis + shift))


def conv(
    orders: Orders, x: Value, weight: Value, bias: Value | None, y: Value, groups: int, *, transposed: bool = False
) -> None:
    """Channels on axis 1; weights (out, in / groups, *), transposed ones (in, out / groups, *).

    One group mixes all channels; as many groups as channels keep them apart, each of them giving a block of y's
    (depthwise). Groups of several channels can't follow.
    """
    channels = x.shape[1]
    inner, outer = (0, 1) if transposed else (1, 0)
    if groups == 1:
        orders.tie(orders.of(x, 1), orders.of(weight, inner))
        orders.tie(orders.of(y, 1), orders.of(weight, outer))
    elif groups == channels:
        block = weight.shape[1] if transposed else weight.shape[0] // channels
        each = tuple(Segment(part.channels, part.block * block) for part in orders.of(x, 1))
        orders.tie(orders.of(y, 1), each)
        orders.tie(orders.of(weight, 0), orders.of(x, 1) if transposed else each)
        if transposed:
            orders.pin(orders.of(weight, 1), "a Conv with several channels in a group")
    else:
        pin_all(orders, [x, weight, *([bias] if bias else []), y], "a Conv with several channels in a group")
        return
    orders.tie(orders.of(x, 0), orders.of(y, 0))
    if bias is not None:
        orders.tie(orders.of(bias, 0), orders.of(y, 1))
    for value in (x, weight, y):
        pin_axes(orders, value, range(2, _rank(value)), "Conv depends on the order")


def channelwise(orders: Orders, x: Value, parameters: Iterable[Value], y: Value) -> None:
    """Normalisation with one parameter a channel, on axis 1."""
    same(orders, x, y)
    for parameter in parameters:
        orders.tie(orders.of(parameter, 0), orders.of(y, 1))


def trailing(orders: Orders, x: Value, parameters: Iterable[Value], y: Value) -> None:
    """Normalisation over the last axes, to whose order mean and variance don't look; scale and bias follow it."""
    same(orders, x, y)
    for parameter in parameters:
        for back in range(1, _rank(parameter) + 1):
            orders.tie(orders.of(parameter, -back), orders.of(y, -back))


def positions(orders: Orders, x: Value, y: Value, count: int, reason: str) -> None:
    """What runs over the last `count` axes mixes positions there, and keeps channels apart (pooling, resizing)."""
    front = _rank(y) - count
    same(orders, x, y, range(front))
    for value in (x, y):
        pin_axes(orders, value, range(front, _rank(value)), reason)


def reshape(orders: Orders, x: Value, y: Value, reason: str) -> None:
    """Axes that stay are tied; axes that merge into one (or split) leave the first of them in blocks of the others.

    Axes of length 1 come and go.
    """
    old, new = ([axis for axis in range(_rank(value)) if value.shape[axis] != 1] for value in (x, y))
    while old and new and x.shape[old[0]] == y.shape[new[0]]:
        orders.tie(orders.of(x, old.pop(0)), orders.of(y, new.pop(0)))
    while old and new and x.shape[old[-1]] == y.shape[new[-1]]:
        orders.tie(orders.of(x, old.pop()), orders.of(y, new.pop()))
    if len(old) > 1 and len(new) == 1:
        _blocks(orders, x, old, orders.of(y, new[0]), reason)
    elif len(new) > 1 and len(old) == 1:
        _blocks(orders, y, new, orders.of(x, old[0]), reason)
    else:
        pin_axes(orders, x, old, reason)
        pin_axes(orders, y, new, reason)


def _blocks(orders: Orders, many: Value, axes: Sequence[int], one: Order, reason: str) -> None:
    """Tie an axis with the first of the axes it is the product of; the others become the block."""
    sizes = [size for axis in axes if isinstance(size := many.shape[axis], int)]
    if len(sizes) == len(axes):
        block = math.prod(sizes[1:])
        first = resolve(orders.of(many, axes[0]))
        orders.tie(one, tuple(Segment(channels, inner * block) for channels, inner in first))
    else:
        orders.pin(one, reason)
        orders.pin(orders.of(many, axes[0]), reason)
    pin_axes(orders, many, axes[1:], reason)


def transpose(orders: Orders, x: Value, y: Value, permutation: Sequence[int]) -> None:
    """Axis i of y is axis permutation[i] of x."""
    moved(orders, x, y, {source: axis for axis, source in enumerate(permutation)})


def concat(orders: Orders, inputs: Sequence[Value], y: Value, axis: int) -> None:
    """Along its axis y has the segments of all inputs; along the others it has their order."""
    axis %= _rank(y)
    for x in inputs:
        same(orders, x, y, [i for i in range(_rank(y)) if i != axis])
    orders.tie(tuple(segment for x in inputs for segment in orders.of(x, axis)), orders.of(y, axis))


def moved(orders: Orders, x: Value, y: Value, axes: Mapping[int, int]) -> None:
    """Axis i of x is axis axes[i] of y. A sum, mean or extreme over the others does not look at their order."""
    for source, target in axes.items():
        orders.tie(orders.of(x, source), orders.of(y, target))


def _rank(value: Value) -> int:
    return len(value.shape) if value.shape is not None else 0
