"""Small graphs, written as ONNX text, that passes are tried on."""

from __future__ import annotations

from typing import Any

import onnx
import onnx_ir as ir
from numpy.typing import NDArray

from smx.activations import Operator, get, is_built_in, known
from smx.export.capture import attach, mixed_nodes
from smx.export.passes import LowerToScatter
from tests import reference

BUILT_IN = tuple(name for name in known() if is_built_in(get(name)))
FUNCTIONS = {name: expression for name in BUILT_IN if (expression := get(name).onnx) is not None}


def graph(
    body: str, inputs: str = "float[batch,4] x", outputs: str = "float[batch,4] y", weights: str = ""
) -> ir.Model:
    """Parse a graph, and infer the shapes that it does not state."""
    model = ir.from_onnx_text(
        f'<ir_version: 10, opset_import: ["" : 18, "smx" : 1]> g ({inputs}) => ({outputs}) {weights} {{ {body} }}'
    )
    for _ in range(3):  # each time the shapes get past one more layer
        for node in mixed_nodes(model):
            # Shape inference does not know MixedActivation: the capture notes that it is shaped like its input.
            node.outputs[0].shape, node.outputs[0].type = node.inputs[0].shape, node.inputs[0].type  # type: ignore[union-attr]
        model = ir.passes.common.ShapeInferencePass()(model).model
    attach(model, FUNCTIONS)
    return model


def mixed(source: str, target: str, choice: str, pool: tuple[str, ...] = ("relu", "tanh", "elu"), axis: int = 1) -> str:
    """Write a MixedActivation."""
    names = ", ".join(f'"{name}"' for name in pool)
    return (
        f"{target} = smx.MixedActivation <choice = [{choice}], pool = [{names}], axis = {axis},"
        f' layer = "{target}"> ({source})'
    )


def operators(model: ir.Model) -> list[str]:
    """Return the operators in the order of the graph."""
    return [node.op_type for node in model.graph]


def operators_of(expression: Operator) -> list[str]:
    """Return the operators of an activation in the order in which they are computed."""
    inner = [source for source in expression.inputs if isinstance(source, Operator)]
    return [*(operator for source in inner for operator in operators_of(source)), expression.type]


def choices(model: ir.Model) -> list[list[int]]:
    """Return the choices of the mixed layers."""
    return [list(node.attributes["choice"].as_ints()) for node in mixed_nodes(model)]


def standard(model: ir.Model) -> onnx.ModelProto:
    """Lower what is left of the mixed layers, and return a valid model of standard operators."""
    LowerToScatter()(model)
    model.graph.opset_imports.pop("smx", None)
    proto = ir.to_proto(model)
    onnx.checker.check_model(proto, full_check=True)
    return proto


def run(model: ir.Model, **inputs: NDArray[Any]) -> NDArray[Any]:
    """Evaluate a model by the ONNX reference evaluator."""
    return reference.evaluate_onnx(standard(model), **inputs)
