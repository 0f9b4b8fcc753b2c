"""Convert a finished model to another version of the standard operators.

ONNX's own converter knows every change to a later version, and few to an earlier one (none for Add, Relu, Split or
Shape). So the changes from 13 to 18 are here, and a node that an older opset can't express is refused.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import onnx.version_converter
import onnx_ir as ir
from onnx_ir.passes import common

from smx.activations import Operator, X, op
from smx.errors import InputError, SmxError, one_line
from smx.export.emit import Emitter
from smx.export.nodes import constant, operand

OPSETS = range(13, 27)
"""26 is the newest that ONNX Runtime 1.31 loads; it refuses 27 as under development."""


def convert(proto: onnx.ModelProto, opset: int) -> onnx.ModelProto:
    """Return a model at another opset, with the oldest IR version for it and with all shapes inferred, and validate it.

    Args:
        proto: at opset 18, or at a later one that is not above `opset`; it is not changed.
        opset: version of the standard operators, one of `OPSETS`.

    Raises:
        InputError: there is no such opset, or an operator of the model needs a later one.
        SmxError: the model is not valid.

    Source: the operators' change logs, https://onnx.ai/onnx/operators/; `onnx.defs` holds what each version takes.
    """
    if opset not in OPSETS:
        raise InputError(f"opset must be between {OPSETS[0]} and {OPSETS[-1]}, got {opset}")
    (source,) = (entry.version for entry in proto.opset_import if not entry.domain)
    try:
        if opset > source:
            proto = onnx.version_converter.convert_version(proto, opset)
        model = ir.from_proto(onnx.shape_inference.infer_shapes(proto, data_prop=True))
        for node in list(model.graph.all_nodes()):
            if _fits(node, source) and not _fits(node, opset):
                _rewrite(model.graph, node, opset)
        for node in model.graph.all_nodes():
            later = next((later for later in range(opset, OPSETS.stop) if _fits(node, later)), opset)
            if later > opset:  # what no opset takes, the checker finds
                name = node.name or node.outputs[0].name
                raise InputError(f"{node.op_type} needs opset {later} or later, as it stands in {name!r}; got {opset}")
        common.RemoveUnusedNodesPass()(model)
        model.opset_imports[""] = opset
        model.ir_version = oldest_ir_version(opset)
    except (onnx.shape_inference.InferenceError, RuntimeError) as error:
        raise SmxError(f"the exported graph is not valid: {one_line(error)}") from error
    return validated(ir.to_proto(model), "the exported graph")


def oldest_ir_version(opset: int) -> int:
    """Return the oldest version of the file format that goes with an opset."""
    return onnx.helper.find_min_ir_version_for([onnx.helper.make_opsetid("", opset)])


def validated(proto: onnx.ModelProto, name: str) -> onnx.ModelProto:
    """Return the model with all shapes inferred, after ONNX's checker has seen it; errors call it `name`.

    Raises:
        SmxError: the model is not valid.
    """
    try:
        proto = onnx.shape_inference.infer_shapes(proto, strict_mode=True, data_prop=True)
        for value in (*proto.graph.input, *proto.graph.output, *proto.graph.value_info):
            value.ClearField("metadata_props")  # PyTorch's notes to itself, and a field of IR version 10
        onnx.checker.check_model(proto, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise SmxError(f"{name} is not valid: {one_line(error)}") from error
    return proto


def _fits(node: ir.Node, opset: int) -> bool:
    """Tell whether the opset has the operator and takes the node's attributes, inputs and types."""
    if not onnx.defs.has(node.op_type, opset):
        return False
    schema = onnx.defs.get_schema(node.op_type, opset)
    return (
        node.attributes.keys() <= schema.attributes.keys()
        and len(node.inputs) <= schema.max_input
        and all(
            f"tensor({value.type.dtype.name.lower()})" in schema.inputs[min(i, len(schema.inputs) - 1)].types
            for i, value in enumerate(node.inputs)
            if value is not None and isinstance(value.type, ir.TensorType)
        )
        and opset >= _changed_meaning(node)
    )


def _changed_meaning(node: ir.Node) -> int:
    """Return the opset since which a node means what it says, where nothing but the meaning changed."""
    if node.op_type == "RoiAlign":
        return 16  # another default
    reduction = node.attributes.get("reduction")
    return 18 if reduction is not None and reduction.value in ("max", "min") else 0


NEUTRAL = {
    "allowzero": 0,
    "antialias": 0,
    "keep_aspect_ratio_policy": "stretch",
    "layout": 0,
    "noop_with_empty_axes": 0,
    "reduction": "none",
    "start": 0,
    "training_mode": 0,
}
"""Attributes, each with the value by which an operator does what it did before it had the attribute."""


def _rewrite(graph: ir.Graph, node: ir.Node, opset: int) -> None:
    """Rewrite a node for an older opset, if that is possible."""
    if onnx.defs.has(node.op_type, opset):
        taken = onnx.defs.get_schema(node.op_type, opset).attributes
        for name, attribute in list(node.attributes.items()):
            if name not in taken and attribute.value == NEUTRAL.get(name):
                del node.attributes[name]
    y, rewrite = node.outputs[0], REWRITES.get(node.op_type)
    if rewrite and not _fits(node, opset) and y.dtype is not None and node.graph is not None:
        emit = Emitter(graph, node.name or str(y.name), y.dtype)
        new = rewrite(node, emit)
        if new is not None:
            ir.convenience.replace_nodes_and_values(node.graph, node, [node], emit.nodes, [y], [new])


Rewrite = Callable[[ir.Node, Emitter], ir.Value | None]
"""Changes a node, or returns the value that replaces its output, or does nothing."""


def _reduce(node: ir.Node, emit: Emitter) -> None:
    """Before 18 the axes were an attribute."""
    axes = constant(node, 1)
    if axes is not None:
        node.resize_inputs(1)
        node.attributes["axes"] = ir.AttrInt64s("axes", axes.tolist())


def _split(node: ir.Node, emit: Emitter) -> None:
    """Before 18 the sizes of the parts were an input, unless all were the same."""
    z, parts = operand(node, 0), len(node.outputs)
    length = z.shape[node.attributes.get_int("axis", 0)] if z.shape is not None else None
    if len(node.inputs) == 1 and isinstance(length, int):
        size = -(-length // parts)
        node.resize_inputs(2)
        values = np.array([size] * (parts - 1) + [length - size * (parts - 1)])
        node.replace_input_with(1, emit.constant(values, part="", name="sizes"))
        del node.attributes["num_outputs"]


def _reshape(node: ir.Node, emit: Emitter) -> None:
    """A 0 in the shape meant the input's length. A shape computed from the batch has none, but for an empty batch."""
    shape = constant(node, 1)
    if shape is None or shape.all():
        del node.attributes["allowzero"]


def _shape(node: ir.Node, emit: Emitter) -> ir.Value:
    """The lengths of some axes were cut out of those of all."""
    bounds = {name: node.attributes.get_int(name, default) for name, default in (("start", 0), ("end", 2**63 - 1))}
    values = [emit.constant(np.array([value]), part="", name=name) for name, value in bounds.items()]
    return emit.node("Slice", [emit.node("Shape", [operand(node, 0)]), *values])


def _layer_norm(node: ir.Node, emit: Emitter) -> ir.Value | None:
    """y = (x - mean) / sqrt(variance + epsilon) scale + bias, in the order that ONNX Runtime fuses again.

    Mean and variance are to be computed in float32 or better.
    """
    x = operand(node, 0)
    if len(node.outputs) > 1 or x.shape is None or emit.dtype not in (ir.DataType.FLOAT, ir.DataType.DOUBLE):
        return None
    axis, rank = node.attributes.get_int("axis", -1), len(x.shape)
    axes = {"axes": list(range(axis % rank, rank))}

    def number(value: float, name: str) -> ir.Value:
        return emit.constant(np.array(value, emit.dtype.numpy()), part="", name=name)

    deviation = emit.node("Sub", [x, emit.node("ReduceMean", [x], axes)])
    variance = emit.node("ReduceMean", [emit.node("Pow", [deviation, number(2.0, "two")])], axes)
    epsilon = number(node.attributes.get_float("epsilon", 1e-5), "epsilon")
    y = emit.node("Div", [deviation, emit.node("Sqrt", [emit.node("Add", [variance, epsilon])])])
    for operator, parameter in zip(("Mul", "Add"), node.inputs[1:], strict=False):
        if parameter is not None:
            y = emit.node(operator, [y, parameter])
    return y


def _as(expression: Operator) -> Rewrite:
    return lambda node, emit: emit.activation(expression, operand(node, 0), part="")


REWRITES: dict[str, Rewrite] = {
    **dict.fromkeys(("ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax"), _reduce),
    **dict.fromkeys(("ReduceMean", "ReduceMin", "ReduceProd", "ReduceSumSquare"), _reduce),
    "Split": _split,
    "Reshape": _reshape,
    "Shape": _shape,
    "LayerNormalization": _layer_norm,
    "HardSwish": _as(op("Mul", X, op("HardSigmoid", alpha=1 / 6, beta=0.5))),
    "Mish": _as(op("Mul", X, op("Tanh", op("Softplus")))),
}
"""How to rewrite the operators that changed between 13 and 18."""
