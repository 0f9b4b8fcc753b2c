"""How kinds of operators tie the orders of their inputs' and outputs' axes.

Each rule is given the `Orders` and a call of an operator. It ties the axes that must be permuted alike for the operator
to compute the same, and pins those whose order the operator looks at. `smx.sorting.aten` says which operator has which
rule.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor
from torch.utils._pytree import tree_leaves

from smx.sorting.axes import AxisClass, Order, Orders, Segment


@dataclass(frozen=True, eq=False)
class Call:
    """A call of an operator: its arguments by their names in PyTorch's schema, its outputs, and what it overwrites."""

    name: str
    arguments: dict[str, Any]
    outputs: list[Tensor]
    written: list[Tensor] = field(default_factory=list)

    @property
    def inputs(self) -> list[Tensor]:
        """All tensors among the arguments."""
        return [x for x in tree_leaves(self.arguments) if isinstance(x, Tensor)]

    @property
    def ends(self) -> tuple[Tensor, Tensor]:
        """The first input and the first output."""
        return self.inputs[0], self.outputs[0]

    @property
    def reason(self) -> str:
        """Why an axis that the operator looks at keeps its order."""
        return f"{self.name} depends on the order"

    def get(self, *names: str) -> list[Tensor]:
        """Return the tensors among the named arguments that the call has."""
        return [x for name in names if (x := self.arguments.get(name)) is not None]


Rule = Callable[[Orders, Call], None]


def opaque(orders: Orders, call: Call) -> None:
    """An operator that nothing is known of: all its inputs and outputs keep their order."""
    orders.pin_all([*call.inputs, *call.outputs], call.reason)


def unrelated(orders: Orders, call: Call) -> None:
    """A new tensor whose entries are all alike, or drawn from one distribution."""


def elementwise(orders: Orders, call: Call) -> None:
    """y = f(a, b, ...) with broadcasting; also f along an axis whose order does not matter to it (Softmax)."""
    for y in call.outputs:
        _broadcast(orders, call.inputs, y)


def linear(orders: Orders, call: Call) -> None:
    """y[..., n] = x[..., k] weight[n, k] + bias[n]."""
    x, y = call.ends
    (weight,) = call.get("weight")
    _same(orders, x, y, range(y.dim() - 1))
    orders.tie(orders.of(x, -1), orders.of(weight, 1))
    orders.tie(orders.of(y, -1), orders.of(weight, 0))
    _broadcast(orders, call.get("bias"), y)


def weight_norm(orders: Orders, call: Call) -> None:
    """y = v g / |v| and |v|, with one g and one norm |v| for each entry of an axis of v."""
    v, g = call.inputs
    _broadcast(orders, [v, g], call.outputs[0])
    for norm in call.outputs[1:]:
        _broadcast(orders, [g], norm)


def matmul(orders: Orders, call: Call) -> None:
    """y[..., m, n] = a[..., m, k] b[..., k, n], or c + a b."""
    (*c, a, b), y = call.inputs, call.outputs[0]
    if min(a.dim(), b.dim()) < 2:
        opaque(orders, call)
        return
    orders.tie(orders.of(a, -1), orders.of(b, -2))
    orders.tie(orders.of(a, -2), orders.of(y, -2))
    orders.tie(orders.of(b, -1), orders.of(y, -1))
    _broadcast(orders, [a, b], y, last=2)
    _broadcast(orders, c, y)


def conv(orders: Orders, call: Call) -> None:
    """Convolutions of any rank; weights (out, in / groups, *), those of transposed ones (in, out / groups, *).

    1. groups = 1 mixes all channels: input and output are independent of each other.
    2. groups = channels (depthwise) keeps the channels apart: each of them makes a block of the output's.
    3. With several channels in a group all orders stay.
    """
    x, y = call.ends
    weight, groups, transposed = call.arguments["weight"], call.arguments["groups"], call.arguments["transposed"]
    channels = x.shape[1]
    if groups == 1:  # case 1
        inner, outer = (0, 1) if transposed else (1, 0)
        orders.tie(orders.of(x, 1), orders.of(weight, inner))
        orders.tie(orders.of(y, 1), orders.of(weight, outer))
    elif groups == channels:  # case 2
        block = weight.shape[1] if transposed else weight.shape[0] // channels
        blocks = _in_blocks(orders.of(x, 1), block)
        orders.tie(orders.of(y, 1), blocks)
        orders.tie(orders.of(weight, 0), orders.of(x, 1) if transposed else blocks)
        if transposed:
            orders.pin(orders.of(weight, 1), "a Conv with several channels in a group")
    else:  # case 3
        orders.pin_all([x, weight, *call.get("bias"), y], "a Conv with several channels in a group")
        return
    orders.tie(orders.of(x, 0), orders.of(y, 0))
    for bias in call.get("bias"):
        orders.tie(orders.of(bias, 0), orders.of(y, 1))
    for tensor in (x, weight, y):
        orders.pin_axes(tensor, range(2, tensor.dim()), "Conv depends on the order")


def channelwise(orders: Orders, call: Call) -> None:
    """BatchNorm and InstanceNorm: one number of each parameter for each channel, on axis 1.

    GroupNorm too, if all channels are one group, whose order does not count, or each channel is a group of its own.
    """
    x, y = call.ends
    if call.arguments.get("num_groups", 1) not in (1, x.shape[1]):
        opaque(orders, call)
        return
    _same(orders, x, y)
    for parameter in call.get("weight", "bias", "running_mean", "running_var"):
        orders.tie(orders.of(parameter, 0), orders.of(y, 1))


def trailing(orders: Orders, call: Call) -> None:
    """LayerNorm and RMSNorm: the statistics over the last axes do not look at their order; the parameters follow it."""
    x, y = call.ends
    _same(orders, x, y)
    for parameter in call.inputs[1:]:
        for back in range(1, parameter.dim() + 1):
            orders.tie(orders.of(parameter, -back), orders.of(y, -back))


def positions(orders: Orders, call: Call) -> None:
    """Pooling, padding and resizing over the last axes; channels stay apart.

    The operator's name has the number of axes, 1, 2 or 3; padding with a constant has a pair of numbers for each.
    """
    x = call.inputs[0]
    digits = [int(character) for character in call.name if character.isdigit()]
    front = x.dim() - (digits[0] if digits else len(call.arguments["pad"]) // 2)
    for y in call.outputs:
        _same(orders, x, y, range(front))
        for tensor in (x, y):
            orders.pin_axes(tensor, range(front, tensor.dim()), call.reason)


def reshape(orders: Orders, call: Call) -> None:
    """Flatten, view, squeeze and the like; axes of length 1 come and go.

    1. Axes that stay, from the front and from the back, are tied.
    2. Several axes become one, or one becomes several: the first of them is tied to the one, in blocks of the others,
       which keep their order.
    3. All other axes keep their order.
    """
    x, y = call.ends
    old, new = ([axis for axis in range(tensor.dim()) if tensor.shape[axis] != 1] for tensor in (x, y))
    while old and new and x.shape[old[0]] == y.shape[new[0]]:  # case 1
        orders.tie(orders.of(x, old.pop(0)), orders.of(y, new.pop(0)))
    while old and new and x.shape[old[-1]] == y.shape[new[-1]]:
        orders.tie(orders.of(x, old.pop()), orders.of(y, new.pop()))
    for many, axes, one, whole in ((x, old, y, new), (y, new, x, old)):
        if len(axes) > 1 and len(whole) == 1:  # case 2
            block = math.prod(many.shape[axis] for axis in axes[1:])
            orders.tie(orders.of(one, whole[0]), _in_blocks(orders.of(many, axes[0]), block))
            orders.pin_axes(many, axes[1:], call.reason)
            return
    orders.pin_axes(x, old, call.reason)  # case 3
    orders.pin_axes(y, new, call.reason)


def transpose(orders: Orders, call: Call) -> None:
    """Permutations of axes."""
    x, y = call.ends
    axes = list(range(x.dim()))
    if call.name == "permute":
        axes = [axis % len(axes) for axis in call.arguments["dims"]]
    elif call.name == "t":
        axes.reverse()
    elif axes:
        a, b = call.arguments["dim0"], call.arguments["dim1"]
        axes[a], axes[b] = axes[b], axes[a]
    _moved(orders, x, y, {source: target for target, source in enumerate(axes)})


def concat(orders: Orders, call: Call) -> None:
    """Tensors one after the other: the axis of the result has the segments of them all."""
    y = call.outputs[0]
    if any(x.dim() != y.dim() for x in call.inputs):  # PyTorch lets empty tensors of any rank in
        opaque(orders, call)
    else:
        _concat(orders, call.inputs, y, call.arguments["dim"])


def split(orders: Orders, call: Call) -> None:
    """The parts of a tensor: put together they are what it was."""
    _concat(orders, call.outputs, call.inputs[0], call.arguments["dim"])


def glu(orders: Orders, call: Call) -> None:
    """y = a sigmoid(b), with a and b the halves of an axis."""
    x, y = call.ends
    _concat(orders, [y, y], x, call.arguments["dim"])


def slicing(orders: Orders, call: Call) -> None:
    """Neighbouring entries: with those before and after them they are the whole axis."""
    x, y = call.ends
    axis = call.arguments["dim"] % x.dim()
    length = x.shape[axis]
    start, stop, step = slice(*(call.arguments[name] for name in ("start", "end", "step"))).indices(length)
    if step != 1:
        opaque(orders, call)
        return
    _same(orders, x, y, [i for i in range(x.dim()) if i != axis])
    before, after = (Segment(AxisClass(size), 1) for size in (start, length - max(start, stop)))
    orders.tie((before, *orders.of(y, axis), after), orders.of(x, axis))


def select(orders: Orders, call: Call) -> None:
    """One entry of an axis, or each by itself; the other axes stay."""
    x = call.inputs[0]
    axis = call.arguments["dim"] % x.dim()
    orders.pin(orders.of(x, axis), call.reason)
    for y in call.outputs:
        _moved(orders, x, y, _without(x, {axis}))


def stack(orders: Orders, call: Call) -> None:
    """A new axis; the others stay."""
    y = call.outputs[0]
    axis = call.arguments["dim"] % y.dim()
    orders.pin(orders.of(y, axis), call.reason)
    for x in call.inputs:
        _moved(orders, x, y, {source: target for target, source in _without(y, {axis}).items()})


def reduction(orders: Orders, call: Call) -> None:
    """A mean, sum or extreme over axes does not depend on their order, but the position of an extreme does."""
    x, axes = call.inputs[0], call.arguments.get("dim")
    axes = [axes] if isinstance(axes, int) else axes
    reduced = {axis % x.dim() for axis in axes} if axes else set(range(x.dim()))
    remaining = _without(x, reduced)
    for y in call.outputs:
        _moved(orders, x, y, {axis: axis for axis in remaining} if y.dim() == x.dim() else remaining)
    if len(call.outputs) > 1:
        orders.pin_axes(x, reduced, call.reason)


def embedding(orders: Orders, call: Call) -> None:
    """y[..., n] = weight[indices[...], n]."""
    weight, numbers, y = *call.inputs, call.outputs[0]
    orders.pin(orders.of(weight, 0), call.reason)
    orders.tie(orders.of(weight, 1), orders.of(y, -1))
    _same(orders, numbers, y, range(numbers.dim()))


def _same(orders: Orders, x: Tensor, y: Tensor, axes: Iterable[int] | None = None) -> None:
    """Tie some axes, or all of them, to those of the same number."""
    for axis in range(y.dim()) if axes is None else axes:
        orders.tie(orders.of(x, axis), orders.of(y, axis))


def _moved(orders: Orders, x: Tensor, y: Tensor, axes: Mapping[int, int]) -> None:
    """Tie axis i of x to axis axes[i] of y."""
    for source, target in axes.items():
        orders.tie(orders.of(x, source), orders.of(y, target))


def _broadcast(orders: Orders, inputs: Iterable[Tensor], y: Tensor, last: int = 0) -> None:
    """Tie the axes of the inputs, but for the last ones, to those of y that they are broadcast to."""
    for x in inputs:
        _moved(orders, x, y, {axis: axis + y.dim() - x.dim() for axis in range(x.dim() - last) if x.shape[axis] != 1})


def _concat(orders: Orders, parts: Sequence[Tensor], whole: Tensor, axis: int) -> None:
    """Tie an axis to the segments of all parts, and the other axes to theirs."""
    axis %= whole.dim()
    for part in parts:
        _same(orders, part, whole, [i for i in range(whole.dim()) if i != axis])
    orders.tie(tuple(segment for part in parts for segment in orders.of(part, axis)), orders.of(whole, axis))


def _in_blocks(order: Order, block: int) -> Order:
    """Return the order of an axis in which every entry became a block."""
    return tuple(Segment(axes, inner * block) for axes, inner in order)


def _without(x: Tensor, gone: set[int]) -> dict[int, int]:
    """Return for each axis that remains its number when the others are gone."""
    return {axis: number for number, axis in enumerate(i for i in range(x.dim()) if i not in gone)}
