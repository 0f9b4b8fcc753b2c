"""How each ONNX operator ties the orders of its axes: the operators through which a permutation can move.

An operator that is not named here is taken to depend on the order of every axis it touches.
"""

from __future__ import annotations

from collections.abc import Callable

import onnx_ir as ir

from smx.export.nodes import kept_axes, permutation, rank
from smx.sorting import ties
from smx.sorting.orders import Orders
from smx.sorting.ties import pin_all

Rule = Callable[[Orders, ir.Node], None]


def tie_node(orders: Orders, node: ir.Node) -> None:
    """Apply the operator's rule, or pin every axis of its inputs and outputs."""
    inputs = [value for value in node.inputs if value is not None]
    rule = RULES.get(node.op_type)
    several = any(output.uses() or output.is_graph_output() for output in node.outputs[1:])
    if rule is None or several or any(value.shape is None for value in (*inputs, node.outputs[0])):
        pin_all(orders, [*inputs, *node.outputs], _reason(node))
    else:
        rule(orders, node)


def _reason(node: ir.Node) -> str:
    return f"{node.op_type} depends on the order"


def _parts(node: ir.Node) -> tuple[list[ir.Value], ir.Value]:
    return [value for value in node.inputs if value is not None], node.outputs[0]


def elementwise(orders: Orders, node: ir.Node) -> None:
    """y = f(a, b, ...) with broadcasting."""
    ties.elementwise(orders, *_parts(node))


def first_input(orders: Orders, node: ir.Node) -> None:
    """y = f(x), elementwise or along an axis whose order f does not look at (Softmax, MixedActivation)."""
    inputs, y = _parts(node)
    ties.same(orders, inputs[0], y)


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
    ties.elementwise(orders, c, y)


def matmul(orders: Orders, node: ir.Node) -> None:
    """y[..., m, n] = a[..., m, k] b[..., k, n]."""
    (a, b), y = _parts(node)
    if rank(a) < 2 or rank(b) < 2:
        pin_all(orders, [a, b, y], "MatMul with a vector")
    else:
        ties.matmul(orders, a, b, y)


def conv(orders: Orders, node: ir.Node) -> None:
    """Channels on axis 1; weights (out, in / group, *)."""
    (x, weight, *bias), y = _parts(node)
    ties.conv(orders, x, weight, bias[0] if bias else None, y, node.attributes.get_int("group", 1))


def channelwise(orders: Orders, node: ir.Node) -> None:
    """Normalisation with one parameter a channel, on axis 1."""
    (x, *parameters), y = _parts(node)
    ties.channelwise(orders, x, parameters, y)


def pooling(orders: Orders, node: ir.Node) -> None:
    """Channels on axis 1 are kept apart; positions are not."""
    inputs, y = _parts(node)
    ties.positions(orders, inputs[0], y, rank(y) - 2, _reason(node))


def reshape(orders: Orders, node: ir.Node) -> None:
    """Axes that stay are tied; axes that merge or split are tied in blocks."""
    inputs, y = _parts(node)
    ties.reshape(orders, inputs[0], y, _reason(node))


def transpose(orders: Orders, node: ir.Node) -> None:
    """Axis i of y is axis perm[i] of x."""
    inputs, y = _parts(node)
    ties.transpose(orders, inputs[0], y, permutation(node))


def concat(orders: Orders, node: ir.Node) -> None:
    """Along its axis y has the segments of all inputs."""
    inputs, y = _parts(node)
    ties.concat(orders, inputs, y, node.attributes["axis"].as_int())


def reduction(orders: Orders, node: ir.Node) -> None:
    """A mean, sum or extreme over axes does not look at their order; the axes that are left keep theirs."""
    (x, *_), y = _parts(node)
    kept = kept_axes(node)
    if kept is None:
        pin_all(orders, [x, y], f"{node.op_type} over axes that are not known")
    else:
        ties.moved(orders, x, y, kept)


def layer_norm(orders: Orders, node: ir.Node) -> None:
    """Mean and variance over the last axes don't look at their order; scale and bias follow it."""
    (x, *parameters), y = _parts(node)
    ties.trailing(orders, x, parameters, y)


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
