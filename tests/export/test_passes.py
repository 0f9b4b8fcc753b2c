"""Each pass on small graphs, with the expected answers from the formulas."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

import smx
from smx.activations import resolve_pool
from smx.export.passes import LowerToScatter, NameByModule
from tests import reference

EXPRESSIONS = {entry.name: entry.onnx for entry in resolve_pool(smx.PAPER_POOL) if entry.onnx is not None}


def graph(body: str, shape: str = "batch,4") -> ir.Model:
    return ir.from_onnx_text(
        f"""<ir_version: 10, opset_import: ["" : 18, "smx" : 1]>
        g (float[{shape}] x) => (float[{shape}] y) {{ {body} }}"""
    )


MIXED = 'y = smx.MixedActivation <choice = [{}], pool = ["relu", "tanh", "elu"], axis = {}, layer = "a.b"> (x)'


def operators(model: ir.Model) -> list[str]:
    return [node.op_type for node in model.graph]


def test_lower_to_scatter_fires_on_a_mixed_activation() -> None:
    model = graph(MIXED.format("2, 0, 2, 1", 1))
    model.graph.inputs[0].shape = ir.Shape(["batch", 4])
    assert LowerToScatter(EXPRESSIONS)(model).modified
    assert operators(model) == [
        "Gather", "Relu", "Shape", "Expand", "ScatterElements",
        "Gather", "Tanh", "Shape", "Expand", "ScatterElements",
        "Gather", "Elu", "Shape", "Expand", "ScatterElements",
    ]  # fmt: skip
    x = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
    del model.graph.opset_imports["smx"]
    y = reference.evaluate_onnx(ir.to_proto(model), x=x)
    expected = reference.mixed(x, np.array([2, 0, 2, 1]), ("relu", "tanh", "elu"))
    np.testing.assert_allclose(y, expected, atol=1e-6)


def test_lower_to_scatter_on_another_axis() -> None:
    model = graph(MIXED.format("2, 0, 1", 2), "batch,4,3")
    LowerToScatter(EXPRESSIONS)(model)
    x = np.random.default_rng(0).normal(size=(2, 4, 3)).astype(np.float32)
    del model.graph.opset_imports["smx"]
    y = reference.evaluate_onnx(ir.to_proto(model), x=x)
    np.testing.assert_allclose(y, reference.mixed(x, np.array([2, 0, 1]), ("relu", "tanh", "elu"), axis=2), atol=1e-6)


def test_lower_to_scatter_needs_no_gather_for_one_group() -> None:
    model = graph(MIXED.format("1, 1, 1, 1", 1))
    assert LowerToScatter(EXPRESSIONS)(model).modified
    assert operators(model) == ["Tanh"]


def test_lower_to_scatter_leaves_other_nodes() -> None:
    model = graph("z = Relu(x) y = Tanh(z)")
    assert not LowerToScatter(EXPRESSIONS)(model).modified
    assert operators(model) == ["Relu", "Tanh"]


def test_name_by_module_names_after_the_innermost_module() -> None:
    model = graph("z = Relu(x) w = Relu(z) y = Tanh(w)")
    for node, scopes in zip(
        model.graph, (["", "net", "net.0", "call"], ["", "net", "net.0", "c"], ["", "c"]), strict=True
    ):
        node.metadata_props["pkg.torch.onnx.name_scopes"] = repr(scopes)
    assert NameByModule()(model).modified
    assert [node.name for node in model.graph] == ["net/0/Relu", "net/0/Relu_2", "Tanh"]
    assert [node.outputs[0].name for node in model.graph] == ["net/0/Relu", "net/0/Relu_2", "y"]


def test_name_by_module_leaves_nodes_of_unknown_origin() -> None:
    model = graph("y = Relu(x)")
    name = model.graph.node(0).name
    assert not NameByModule()(model).modified
    assert model.graph.node(0).name == name
