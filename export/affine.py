"""Move h = scale * h' + shift, one pair of numbers a channel, into the weights before or after it.

Nothing is moved unless all of it can be: planning returns the changes to make, or raises `RefusedError` and changes
nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from smx.export.emit import add_initializer, free_name
from smx.export.nodes import kept_axes, operand, permutation, rank
from smx.export.weights import Exact, formula, is_weight, own, rewrite

Change = Callable[[], None]


class RefusedError(Exception):
    """A move that the graph does not allow; the message says why."""


@dataclass(frozen=True, eq=False)
class Affine:
    """h = scale * h' + shift; float64 (N,), for the N channels of an axis."""

    scale: Exact
    shift: Exact

    @property
    def shifts(self) -> bool:
        """Whether any shift is not 0."""
        return bool(self.shift.any())


def into_producer(graph: ir.Graph, value: ir.Value, axis: int, affine: Affine) -> list[Change]:
    """Plan the changes by which the operator that computes `value` computes scale * value + shift.

    Raises:
        RefusedError: it has no weights for this axis, or something else uses its output.
    """
    node = value.producer()
    if node is None:
        raise RefusedError("it is an input of the model")
    if len(value.uses()) != 1 or value.is_graph_output():
        raise RefusedError("what comes before it is used elsewhere, too")
    match node.op_type:
        case "Gemm" if axis == 1 and _is_linear(node):
            return _mapped(graph, node, 0 if _flag(node, "transB") else 1, affine)
        case "Conv" if axis == 1 and is_weight(node.inputs[1]):
            return _mapped(graph, node, 0, affine)
        case "BatchNormalization" if axis == 1 and all(map(is_weight, node.inputs[1:3])):
            return _mapped(graph, node, 0, affine)
        case "MatMul" if axis == rank(value) - 1 and _is_linear(node) and not affine.shifts:
            return _scaled(graph, node, 1, 1, affine.scale)
        case "Add" if (bias := bias_of(node, axis)) is not None:
            source = operand(node, 1 - bias)
            if source.shape != value.shape:
                raise RefusedError("the Add before it makes its input larger")
            scaling = Affine(affine.scale, np.zeros_like(affine.shift))
            scaled = [] if np.all(affine.scale == 1) else into_producer(graph, source, axis, scaling)
            return scaled + _biased(graph, node, bias, len(affine.scale), affine.scale, lambda: affine.shift)
    raise RefusedError(f"the {node.op_type} before it can't take it up")


def into_consumers(graph: ir.Graph, value: ir.Value, axis: int, affine: Affine) -> list[Change]:
    """Plan the changes by which all that uses `value` takes scale and shift into its weights: then it may be h' for h.

    Raises:
        RefusedError: something uses the values as they are.
    """
    if value.is_graph_output():
        raise RefusedError("it is an output of the model")
    changes: list[Change] = []
    for node, index in value.uses():
        if node.graph is not graph:
            raise RefusedError("a branch or a loop uses it")
        if index != 0 and node.op_type != "Concat":
            raise RefusedError(f"the {node.op_type} after it needs the values as they are")
        changes += _into_consumer(graph, node, value, axis, affine)
    return changes


def _into_consumer(graph: ir.Graph, node: ir.Node, x: ir.Value, axis: int, affine: Affine) -> list[Change]:
    y = node.outputs[0]
    match node.op_type:
        case "Gemm" if axis == 1 and _is_linear(node):
            return _linear(graph, node, int(_flag(node, "transB")), affine, (node, 2))
        case "MatMul" if axis == rank(x) - 1 and _is_linear(node):
            return _linear(graph, node, 0, affine, _bias_after(y) if affine.shifts else None)
        case "Conv" if axis == 1 and is_weight(node.inputs[1]):
            return _conv(graph, node, affine)
        case "BatchNormalization" if (
            axis == 1 and all(map(is_weight, node.inputs[1:4])) and not _flag(node, "training_mode")
        ):
            # gamma (s h' + t - m) / sigma = gamma s (h' - (m - t) / s) / sigma
            moved: Change = lambda: rewrite(own(graph, node, 3), lambda mean: (mean - affine.shift) / affine.scale)  # noqa: E731
            return [moved, *_scaled(graph, node, 1, 0, affine.scale)]
        case "Identity" | "Dropout" | "GlobalAveragePool":
            return into_consumers(graph, y, axis, affine)
        case "AveragePool" if not (affine.shifts and _pads(node)):
            return into_consumers(graph, y, axis, affine)
        case "MaxPool" | "GlobalMaxPool" if np.all(affine.scale > 0) and len(node.outputs) == 1:
            return into_consumers(graph, y, axis, affine)
        case "ReduceMean" if axis in (kept := kept_axes(node)):
            return into_consumers(graph, y, kept[axis], affine)
        case "Transpose":
            return into_consumers(graph, y, permutation(node).index(axis), affine)
        case "Reshape" | "Flatten" | "Squeeze" | "Unsqueeze":
            target, block = _regrouped(node, x, axis)
            return into_consumers(graph, y, target, Affine(affine.scale.repeat(block), affine.shift.repeat(block)))
        case "Concat" if axis == node.attributes.get_int("axis", 0) % rank(y):
            return into_consumers(graph, y, axis, _within(node, x, axis, affine))
    raise RefusedError(f"the {node.op_type} after it needs the values as they are")


def _linear(
    graph: ir.Graph, node: ir.Node, axis: int, affine: Affine, bias: tuple[ir.Node, int] | None
) -> list[Change]:
    """W (s h' + t) + b = (W s) h' + (b + W t), with the channels along `axis` of the 2-D weight."""
    changes = _scaled(graph, node, 1, axis, affine.scale)
    if affine.shifts and bias is not None:
        weight = operand(node, 1)
        before, length = formula(weight), int(weight.shape[1 - axis])  # type: ignore[index,arg-type]
        changes += _biased(graph, *bias, length, 1.0, lambda: np.tensordot(affine.shift, before(), (0, axis)))
    return changes


def _conv(graph: ir.Graph, node: ir.Node, affine: Affine) -> list[Change]:
    """Like `_linear`; a border padded with zeros holds h = 0, which no h' with a shift can stand for."""
    if affine.shifts and _pads(node):
        raise RefusedError("the Conv after it pads with zeros, which would be shifted, too")
    weight = operand(node, 1)
    before = formula(weight)
    outputs, inputs = (int(size) for size in list(weight.shape or ())[:2])  # type: ignore[arg-type]
    # Output channel o reads the I input channels of its group, from (o // (O / groups)) * I on.
    start = np.arange(outputs) // (outputs // node.attributes.get_int("group", 1)) * inputs
    source = start[:, None] + np.arange(inputs)
    scale = affine.scale[source].reshape(outputs, inputs, *(1,) * (rank(weight) - 2))
    changes: list[Change] = [lambda: rewrite(own(graph, node, 1), lambda w: w * scale)]
    if affine.shifts:

        def shifted() -> Exact:
            sums: Exact = before().reshape(outputs, inputs, -1).sum(2)
            return np.asarray((sums * affine.shift[source]).sum(1))

        changes += _biased(graph, node, 2, outputs, 1.0, shifted)
    return changes


def _mapped(graph: ir.Graph, node: ir.Node, axis: int, affine: Affine) -> list[Change]:
    """scale (W x + b) + shift = (scale W) x + (scale b + shift), with the channels along `axis` of the weight."""
    changes = _scaled(graph, node, 1, axis, affine.scale)
    if affine.shifts or _has(node, 2):
        changes += _biased(graph, node, 2, len(affine.scale), affine.scale, lambda: affine.shift)
    return changes


def _scaled(graph: ir.Graph, node: ir.Node, index: int, axis: int, scale: Exact) -> list[Change]:
    """Multiply a weight along one axis."""
    if np.all(scale == 1):
        return []
    shape = [-1 if i == axis else 1 for i in range(rank(node.inputs[index]))]
    return [lambda: rewrite(own(graph, node, index), lambda w: w * scale.reshape(shape))]


def _biased(
    graph: ir.Graph, node: ir.Node, index: int, length: int, scale: Exact | float, summand: Callable[[], Exact]
) -> list[Change]:
    """A bias b of a length becomes scale * b + summand(); where there is none, it is made."""
    if _has(node, index):
        bias = operand(node, index)
        sizes = [size for size in bias.shape or () if size != 1]
        per_row = node.op_type == "Gemm" and rank(bias) == 2 and bias.shape[0] != 1  # type: ignore[index]
        if not is_weight(bias) or per_row or sizes != [length] * (length != 1):
            raise RefusedError(f"the bias of the {node.op_type} is not one constant for each channel")

    def change() -> None:
        if not _has(node, index):
            node.resize_inputs(max(len(node.inputs), index + 1))
            name, dtype = free_name(f"{node.name}/bias", set(graph.initializers)), operand(node, 1).dtype
            node.replace_input_with(index, add_initializer(graph, name, np.zeros(length, dtype.numpy())))  # type: ignore[union-attr]
        rewrite(own(graph, node, index), lambda b: (b.reshape(-1) * scale + summand()).reshape(b.shape))

    return [change]


def bias_of(node: ir.Node, axis: int) -> int | None:
    """Return which input of an elementwise operator is a constant with one value for each channel of an axis."""
    y = node.outputs[0]
    for index, value in enumerate(node.inputs):
        if is_weight(value) and y.shape is not None:
            assert value is not None
            shape = (1,) * (rank(y) - rank(value)) + tuple(value.shape or ())
            if shape == tuple(size if i == axis else 1 for i, size in enumerate(y.shape)):
                return index
    return None


def _bias_after(y: ir.Value) -> tuple[ir.Node, int]:
    """Return the Add, and which of its inputs is the bias, that follows a MatMul."""
    after = list(y.consumers())
    whole = len(y.uses()) == 1 and after[0].op_type == "Add" and not y.is_graph_output()
    if whole and after[0].outputs[0].shape == y.shape:
        bias = bias_of(after[0], rank(y) - 1)
        if bias is not None:
            return after[0], bias
    raise RefusedError("the MatMul after it has no bias to take the shift")


def _within(node: ir.Node, x: ir.Value, axis: int, affine: Affine) -> Affine:
    """Return the map of a Concat's output, where only one of its inputs changes."""
    sizes = [value.shape[axis] if value is not None and value.shape is not None else None for value in node.inputs]
    lengths = [size for size in sizes if isinstance(size, int)]
    if len(lengths) < len(sizes) or node.inputs.count(x) != 1:
        raise RefusedError("the Concat after it has inputs of unknown size")
    before = sum(lengths[: node.inputs.index(x)])
    around = (before, sum(lengths) - before - len(affine.scale))
    return Affine(np.pad(affine.scale, around, constant_values=1), np.pad(affine.shift, around))


def _regrouped(node: ir.Node, x: ir.Value, axis: int) -> tuple[int, int]:
    """Return where an axis stands after a reshape, and how many neighbouring entries a channel has become."""
    before, after = tuple(x.shape or ()), tuple(node.outputs[0].shape or ())
    inner = before[axis:]
    if all(isinstance(size, int) for size in inner):
        channels, values = int(inner[0]), math.prod(map(int, inner[1:]))  # type: ignore[arg-type]
        for target in reversed(range(len(after))):
            rest = after[target:]
            if not all(isinstance(size, int) for size in rest):
                break
            block, remainder = divmod(values, max(1, math.prod(map(int, rest[1:]))))  # type: ignore[arg-type]
            if block and not remainder and after[target] == channels * block:
                return target, block
    raise RefusedError(f"the {node.op_type} after it does not keep its axis whole")


def _is_linear(node: ir.Node) -> bool:
    """Whether a Gemm or MatMul is a b + c with a constant matrix b."""
    plain = all(node.attributes.get_float(name, 1.0) == 1 for name in ("alpha", "beta")) and not _flag(node, "transA")
    return plain and is_weight(node.inputs[1]) and rank(node.inputs[1]) == 2


def _pads(node: ir.Node) -> bool:
    """Whether zeros come into the windows of a Conv or of an average."""
    automatic = node.attributes.get_string("auto_pad", "NOTSET") not in ("NOTSET", "VALID")
    padded = automatic or any(node.attributes.get_ints("pads", ()))
    if node.op_type == "AveragePool":
        return _flag(node, "ceil_mode") or (padded and _flag(node, "count_include_pad"))
    return padded


def _flag(node: ir.Node, name: str) -> bool:
    return bool(node.attributes.get_int(name, 0))


def _has(node: ir.Node, index: int) -> bool:
    return len(node.inputs) > index and node.inputs[index] is not None
