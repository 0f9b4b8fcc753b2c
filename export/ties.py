"""How each ONNX operator ties the orders of its axes: the operators through which a permutation can move.

An operator that is not named here is taken to depend on the order of every axis it touches.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import onnx_ir as ir

from smx.export.nodes import kept_axes, permutation, rank
from smx.export.orders import Order, Orders, Segment, resolve

Rule = Callable[[Orders, ir.Node], None]


def tie_node(orders: Orders, node: ir.Node) -> None:
    """Apply the operator's rule, or pin every axis of its inputs and outputs."""
    inputs = [value for value in node.inputs if value is not None]
    rule = RULES.get(node.op_type)
    several = any(output.uses() or output.is_graph_output() for output in node.outputs[1:])
    if rule is None or several or any(value.shape is None for value in (*inputs, node.outputs[0])):
        pin_all(orders, [*inputs, *node.outputs], f"{node.op_type} depends on the order")
    else:
        rule(orders, node)


def pin_all(orders: Orders, values: Sequence[ir.Value], reason: str) -> None:
    """Pin every axis of the values."""
    for value in values:
        for axis in range(rank(value)):
            orders.pin(orders.of(value, axis), reason)


def _pin_axes(orders: Orders, node: ir.Node, value: ir.Value, axes: range) -> None:
    for axis in axes:
        orders.pin(orders.of(value, axis), f"{node.op_type} depends on the order")


def _same(orders: Orders, a: ir.Value, b: ir.Value, axes: Sequence[int]) -> None:
    for axis in axes:
        orders.tie(orders.of(a, axis), orders.of(b, axis))


def _parts(node: ir.Node) -> tuple[list[ir.Value], ir.Value]:
    return [value for value in node.inputs if value is not None], node.outputs[0]


def elementwise(orders: Orders, node: ir.Node) -> None:
    """y = f(a, b, ...) with broadcasting: every axis of y ties the axes that it is made of."""
    inputs, y = _parts(node)
    for x in inputs:
        shift = rank(y) - rank(x)
        for axis in range(rank(x)):
            if x.shape[axis] != 1:  # type: ignore[index]
                orders.tie(orders.of(x, axis), orders.of(y, axis + shift))


def first_input(orders: Orders, node: ir.Node) -> None:
    """y = f(x), elementwise or along an axis whose order f does not look at (Softmax, MixedActivation)."""
    inputs, y = _parts(node)
    _same(orders, inputs[0], y, range(rank(y)))


def gemm(orders: Orders, node: ir.Node) -> None:
    """y = a b + c: b's one axis follows a's channels, its other one and c follow y's."""
    (a, b, *c), y = _parts(node)
    if node.attributes.get_int("transA", 0):
        pin_all(orders, [a, b, *c, y], "Gemm with a transposed input")
        return
    rows, columns = (1, 0) if node.attributes.get_int("transB", 0) else (0, 1)
    orders.tie(orders.of(a, 0), orders.of(y, 0))
    orders.tie(orders.of(a, 1), orders.of(b, rows))
    orders.tie(orders.of(y, 1), orders.of(b, columns))
    for bias in c:
        for back in range(1, rank(bias) + 1):
            if bias.shape[-back] != 1:  # type: ignore[index]
                orders.tie(orders.of(bias, -back), orders.of(y, -back))


def matmul(orders: Orders, node: ir.Node) -> None:
    """y[..., m, n] = a[..., m, k] b[..., k, n]."""
    (a, b), y = _parts(node)
    if rank(a) < 2 or rank(b) < 2:
        pin_all(orders, [a, b, y], "MatMul with a vector")
        return
    orders.tie(orders.of(a, -1), orders.of(b, -2))
    orders.tie(orders.of(a, -2), orders.of(y, -2))
    orders.tie(orders.of(b, -1), orders.of(y, -1))
    for x in (a, b):
        shift = rank(y) - rank(x)
        for axis in range(rank(x) - 2):
            if x.shape[axis] != 1:  # type: ignore[index]
                orders.tie(orders.of(x, axis), orders.of(y, axis + shift))


def conv(orders: Orders, node: ir.Node) -> None:
    """Channels on axis 1; weights (out, in / group, *). A depthwise Conv keeps channels apart; other groups don't."""
    (x, weight, *bias), y = _parts(node)
    group = node.attributes.get_int("group", 1)
    channels = x.shape[1]  # type: ignore[index]
    if group == 1:
        orders.tie(orders.of(x, 1), orders.of(weight, 1))
    elif group == channels == weight.shape[0]:  # type: ignore[index]
        orders.tie(orders.of(x, 1), orders.of(y, 1))
    else:
        pin_all(orders, [x, weight, *bias, y], "a Conv with several channels in a group")
        return
    orders.tie(orders.of(x, 0), orders.of(y, 0))
    orders.tie(orders.of(y, 1), orders.of(weight, 0))
    for b in bias:
        orders.tie(orders.of(b, 0), orders.of(y, 1))
    for value in (x, weight, y):
        _pin_axes(orders, node, value, range(2, rank(value)))


def channelwise(orders: Orders, node: ir.Node) -> None:
    """Normalisation with one parameter a channel, on axis 1."""
    (x, *parameters), y = _parts(node)
    _same(orders, x, y, range(rank(y)))
    for parameter in parameters:
        orders.tie(orders.of(parameter, 0), orders.of(y, 1))


def pooling(orders: Orders, node: ir.Node) -> None:
    """Channels on axis 1 are kept apart; positions are not."""
    inputs, y = _parts(node)
    _same(orders, inputs[0], y, (0, 1))
    for value in (inputs[0], y):
        _pin_axes(orders, node, value, range(2, rank(value)))


def reshape(orders: Orders, node: ir.Node) -> None:
    """Axes that stay are tied; axes that merge into one (or split) leave the first of them in blocks of the others."""
    inputs, y = _parts(node)
    x = inputs[0]
    old, new = list(x.shape or ()), list(y.shape or ())
    front = 0
    while front < min(len(old), len(new)) and old[front] == new[front]:
        orders.tie(orders.of(x, front), orders.of(y, front))
        front += 1
    back = 0
    while back < min(len(old), len(new)) - front and old[-1 - back] == new[-1 - back]:
        back += 1
        orders.tie(orders.of(x, -back), orders.of(y, -back))
    left, right = range(front, len(old) - back), range(front, len(new) - back)
    if len(left) > 1 and len(right) == 1:
        _blocks(orders, node, x, left, orders.of(y, front))
    elif len(right) > 1 and len(left) == 1:
        _blocks(orders, node, y, right, orders.of(x, front))
    else:
        _pin_axes(orders, node, x, left)
        _pin_axes(orders, node, y, right)


def _blocks(orders: Orders, node: ir.Node, many: ir.Value, axes: range, one: Order) -> None:
    """Tie an axis with the first of the axes it is the product of; the others become the block."""
    sizes = [size for axis in axes if isinstance(size := many.shape[axis], int)]  # type: ignore[index]
    if len(sizes) == len(axes):
        block = math.prod(sizes[1:])
        first = resolve(orders.of(many, axes[0]))
        orders.tie(one, tuple(Segment(channels, inner * block) for channels, inner in first))
    else:
        orders.pin(one, f"{node.op_type} depends on the order")
        orders.pin(orders.of(many, axes[0]), f"{node.op_type} depends on the order")
    _pin_axes(orders, node, many, axes[1:])


def transpose(orders: Orders, node: ir.Node) -> None:
    """Axis i of y is axis perm[i] of x."""
    (x, *_), y = _parts(node)
    for axis, source in enumerate(permutation(node)):
        orders.tie(orders.of(x, source), orders.of(y, axis))


def concat(orders: Orders, node: ir.Node) -> None:
    """Along its axis y has the segments of all inputs; along the others it has their order."""
    inputs, y = _parts(node)
    axis = node.attributes["axis"].as_int() % rank(y)
    for x in inputs:
        _same(orders, x, y, [i for i in range(rank(y)) if i != axis])
    orders.tie(tuple(segment for x in inputs for segment in orders.of(x, axis)), orders.of(y, axis))


def reduction(orders: Orders, node: ir.Node) -> None:
    """A mean, sum or extreme over axes does not look at their order; the axes that are left keep theirs."""
    (x, *_), y = _parts(node)
    kept = kept_axes(node)
    if kept is None:
        pin_all(orders, [x, y], f"{node.op_type} over axes that are not known")
        return
    for source, target in kept.items():
        orders.tie(orders.of(x, source), orders.of(y, target))


def layer_norm(orders: Orders, node: ir.Node) -> None:
    """Mean and variance over the last axes don't look at their order; scale and bias follow it."""
    (x, *parameters), y = _parts(node)
    _same(orders, x, y, range(rank(y)))
    for parameter in parameters:
        for back in range(1, rank(parameter) + 1):
            orders.tie(orders.of(parameter, -back), orders.of(y, -back))


def unrelated(orders: Orders, node: ir.Node) -> None:
    """Shapes are the same for every order."""


RULES: dict[str, Rule] = {
    **dict.fromkeys(("Add", "Sub", "Mul", "Div", "Pow", "Min", "Max", "Mean", "Sum", "Where", "PRelu"), elementwise),
    **dict.fromkeys(("Identity", "Dropout", "Cast", "Clip", "Softmax", "LogSoftmax", "MixedActivation"), first_input),
    **dict.fromkeys(("Relu", "Sigmoid", "Tanh", "LeakyRelu", "Elu", "Selu", "Celu", "Gelu", "HardSwish"), first_input),
    **dict.fromkeys(("HardSigmoid", "Mish", "Softplus", "Softsign", "Swish", "ThresholdedRelu"), first_input),
    **dict.fromkeys(("Erf", "Exp", "Log", "Sqrt", "Neg", "Abs", "Reciprocal", "Sin", "Cos"), first_input),
    **dict.fromkeys(("BatchNormalization", "InstanceNormalization"), channelwise),
    **dict.fromkeys(("MaxPool", "AveragePool", "LpPool", "GlobalAveragePool", "GlobalMaxPool"), pooling),
    **dict.fromkeys(("Reshape", "Flatten", "Squeeze", "Unsqueeze"), reshape),
    **dict.fromkeys(("ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceL2"), reduction),
    "Gemm": gemm,
    "MatMul": matmul,
    "Conv": conv,
    "Transpose": transpose,
    "Concat": concat,
    "LayerNormalization": layer_norm,
    "Shape": unrelated,
}
