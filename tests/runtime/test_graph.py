from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest

from smx.errors import InputError
from smx.runtime.graph import summarise


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
