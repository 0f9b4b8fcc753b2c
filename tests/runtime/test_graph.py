from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx.reference import ReferenceEvaluator

from smx.errors import InputError
from smx.runtime import Session
from smx.runtime.graph import NodeInfo, expose, nodes, summarise, weight_files
from tests.runtime.fakes import save_wide


def test_the_outline_is_what_the_onnx_package_reads(exported: Path) -> None:
    proto = onnx.load(exported)
    found = summarise(exported)
    assert found.operators == dict(Counter(node.op_type for node in proto.graph.node))
    weights = [tensor for tensor in proto.graph.initializer if tensor.data_type == onnx.TensorProto.FLOAT]
    assert found.parameters == sum(onnx.numpy_helper.to_array(tensor).size for tensor in weights)
    assert found.parameters >= 64 * 24 + 24 + 24 * 16 + 16 + 16 * 10 + 10
    assert found.opsets == {"ai.onnx": proto.opset_import[0].version}
    assert found.producer == f"{proto.producer_name} {proto.producer_version}"


def test_other_domains_are_named(tmp_path: Path) -> None:
    node = onnx.helper.make_node("Swish", ["x"], ["y"], domain="com.example")
    value = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1]) for name in "xy"]
    tensor = onnx.numpy_helper.from_array(np.zeros((3, 4)), "w")
    model = onnx.helper.make_model(onnx.helper.make_graph([node], "g", value[:1], value[1:], [tensor]))
    onnx.save(model, tmp_path / "m.onnx")
    assert summarise(tmp_path / "m.onnx").operators == {"com.example::Swish": 1}
    assert summarise(tmp_path / "m.onnx").parameters == 12


def test_no_model(tmp_path: Path) -> None:
    (tmp_path / "bad.onnx").write_bytes(b"\xff\xff")
    with pytest.raises(InputError, match=r"bad\.onnx is no ONNX model"):
        summarise(tmp_path / "bad.onnx")
    with pytest.raises(InputError, match="does not exist"):
        summarise(tmp_path / "none.onnx")


def test_nodes_are_those_that_the_onnx_package_reads(exported: Path) -> None:
    expected = [
        NodeInfo(name=n.name, operator=n.op_type, domain=n.domain, inputs=tuple(n.input), outputs=tuple(n.output))
        for n in onnx.load(exported).graph.node
    ]
    assert nodes(exported) == expected
    assert nodes(exported.read_bytes()) == expected
    with pytest.raises(InputError, match="the model is no ONNX model"):
        nodes(b"\xff\xff")
    with pytest.raises(InputError, match="is no file; expected an ONNX model"):
        nodes(exported.parent)


def test_exposed_values_are_those_of_the_reference(exported: Path) -> None:
    proto = onnx.load(exported)
    values = [name for node in proto.graph.node for name in node.output if name != proto.graph.output[0].name]
    session = ort.InferenceSession(expose(exported, values), providers=["CPUExecutionProvider"])
    assert [output.name for output in session.get_outputs()] == [proto.graph.output[0].name, *values]
    x = np.random.default_rng(0).normal(size=(5, 64)).astype(np.float32)
    expected = ReferenceEvaluator(proto).run(None, {"input": x}, intermediate=True)
    for output, value in zip(session.get_outputs(), session.run(None, {"input": x}), strict=True):
        np.testing.assert_allclose(value, expected[output.name], rtol=1e-5, atol=1e-5)


def elaborate() -> onnx.ModelProto:
    """Return a model with fields of all kinds, most of which the outline does not declare."""
    helper, number = onnx.helper, onnx.TensorProto.FLOAT
    body = [helper.make_node("Mul", ["a", "a"], ["b"], doc_string="squares")]
    square = helper.make_function("own", "Square", ["a"], ["b"], body, [helper.make_opsetid("", 18)])
    graph = helper.make_graph(
        [
            helper.make_node("Square", ["x"], ["s"], name="square", domain="own"),
            helper.make_node("Gemm", ["s", "w"], ["z"], name="", alpha=0.5, transB=1, doc_string="half"),
            helper.make_node("Clip", ["z", "", "one"], ["y"], name="clip"),
        ],
        "g",
        [helper.make_tensor_value_info("x", number, ["batch", 3])],
        [helper.make_tensor_value_info("y", number, ["batch", 2], doc_string="the output")],
        [
            onnx.numpy_helper.from_array(np.arange(6, dtype=np.float32).reshape(2, 3), "w"),
            onnx.numpy_helper.from_array(np.array(1, np.float32), "one"),
        ],
        doc_string="a graph",
        value_info=[helper.make_tensor_value_info("z", number, ["batch", 2])],
    )
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("own", 1)]
    model = helper.make_model(graph, opset_imports=opsets, functions=[square], producer_name="", doc_string="a model")
    helper.set_model_props(model, {"smx.pool": "relu", "empty": ""})
    model.ir_version = 10
    return model


def test_exposing_changes_nothing_but_outputs(tmp_path: Path) -> None:
    model = elaborate()
    onnx.save(model, tmp_path / "m.onnx")
    exposed = onnx.load_from_string(expose(tmp_path / "m.onnx", ["z", "y", "x", "z"]))
    assert [value.name for value in exposed.graph.output] == ["y", "z", "x"]
    del exposed.graph.output[1:]
    assert exposed == model
    x = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
    session = ort.InferenceSession(expose(tmp_path / "m.onnx", ["s", "x"]), providers=["CPUExecutionProvider"])
    _, s, same = session.run(None, {"x": x})
    np.testing.assert_array_equal(s, x * x)
    np.testing.assert_array_equal(same, x)


@pytest.mark.parametrize("value", ["nothing", "", "w", "b"])
def test_only_values_of_the_graph_can_be_exposed(value: str, tmp_path: Path) -> None:
    onnx.save(elaborate(), tmp_path / "m.onnx")
    with pytest.raises(
        InputError, match=rf"m\.onnx has no value '{value}'; expected the output of a node, or an input"
    ):
        expose(tmp_path / "m.onnx", ["z", value])


def test_weights_beside_the_file_are_found(tmp_path: Path) -> None:
    path = save_wide(tmp_path / "m.onnx", 300, save_as_external_data=True, location="m.data", size_threshold=0)
    y, x = Session(expose(path, ["x"]), folder=tmp_path).run_all(np.full((2, 1), 3))
    np.testing.assert_array_equal(y, np.full((2, 300), 3))
    np.testing.assert_array_equal(x, [[3], [3]])


def test_files_of_weights_are_named(exported: Path, tmp_path: Path) -> None:
    model = onnx.load(exported)
    assert weight_files(exported) == []
    for name in ("w.bin", "deep/w.bin", "../w.bin", "/w.bin"):
        tensor = next(tensor for tensor in model.graph.initializer if tensor.data_type == onnx.TensorProto.FLOAT)
        onnx.external_data_helper.set_external_data(tensor, name, offset=0)
        (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
        if name[0] in "./":
            with pytest.raises(InputError, match="weights outside its folder"):
                weight_files(tmp_path / "m.onnx")
        else:
            assert weight_files(tmp_path / "m.onnx") == [name]
