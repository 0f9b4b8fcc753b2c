from __future__ import annotations

import json
import math
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from smx.errors import InputError
from smx.runtime.graph import NodeInfo
from smx.runtime.profile.fold import FallenBack, Profile, fold
from smx.runtime.profile.layers import layer_of, layers
from smx.runtime.profile.run import profile
from smx.runtime.settings import Settings
from tests.runtime.fakes import HEAD, save

LOOSE = HEAD + "(float[batch,size] x) => (float[batch,size] y) { y = Relu(x) }"


@pytest.fixture
def dense(tmp_path: Path) -> Path:
    """Return a Gemm with its Relu, a sum of constants, and a node without a name."""
    text = """(float[batch,2] x) => (float[batch,2] y) <float[2,2] w = {1, -2, 3, 4}, float[2] b = {5, 6}> {
        ["l1/linear/Gemm"] z = Gemm(x, w, b)
        ["l1/activation/relu/Relu"] h = Relu(z)
        ["constants/Add"] twice = Add(b, b)
        y = Mul(h, twice)
    }"""
    return save(tmp_path / "dense.onnx", HEAD + text)


def counts(found: Profile) -> Counter[str]:
    counter: Counter[str] = Counter()
    for row in found.rows:
        counter[row.operator] += row.count
    return counter


@pytest.mark.parametrize("optimization", ["disabled", "all"])
def test_the_operators_are_those_of_the_optimised_model(exported: Path, tmp_path: Path, optimization: str) -> None:
    settings = Settings(threads=1, optimization=optimization)
    options = settings.to_options()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    ort.InferenceSession(exported, options, providers=["CPUExecutionProvider"])
    expected = Counter(node.op_type for node in onnx.load(tmp_path / "optimised.onnx").graph.node)
    found = profile(exported, 3, settings=settings, runs=4)
    assert counts(found) == expected
    assert math.isclose(sum(row.share for row in found.rows), 1)
    assert (found.batch_size, found.runs) == (3, 4)
    assert found.nodes == len(onnx.load(exported).graph.node)
    layers = [row.layer for row in found.rows]
    assert {"layer1.linear", "layer1.activation", "layer2.activation", "output"} <= set(layers)
    assert layers == sorted(layers, key=list(dict.fromkeys(layers)).index)  # each layer in one piece
    assert {row.provider for row in found.rows} == {"cpu"}
    assert json.loads(json.dumps(found.to_dict()))["rows"][0]["layer"] == layers[0]


def test_fused_and_folded_nodes_are_named(dense: Path) -> None:
    found = profile(dense, 2, runs=2)
    assert [(row.layer, row.operator, row.count) for row in found.rows] == [
        ("l1.linear", "FusedGemm", 1),
        ("other", "Mul", 1),
    ]
    assert found.gone == ("l1/linear/Gemm", "l1/activation/relu/Relu", "constants/Add")
    assert found.fallen_back == ()
    plain = profile(dense, 2, runs=2, settings=Settings(optimization="disabled"))
    assert counts(plain) == {"Gemm": 1, "Relu": 1, "Add": 1, "Mul": 1}
    assert plain.gone == ()
    assert {row.layer for row in plain.rows} == {"l1.linear", "l1.activation.relu", "constants", "other"}


def test_a_provider_that_refuses_to_save_what_it_runs(dense: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    start = ort.InferenceSession

    def refuse(path: Path, options: Any, **arguments: Any) -> Any:
        if options.optimized_model_filepath:
            raise RuntimeError("Unable to serialize model as it contains compiled nodes")
        return start(path, options, **arguments)

    monkeypatch.setattr(ort, "InferenceSession", refuse)
    found = profile(dense, 2, runs=2)
    assert [(row.layer, row.operator) for row in found.rows] == [("l1.linear", "FusedGemm"), ("other", "Mul")]


def test_what_runs_inside_a_node_counts_as_that_node(tmp_path: Path) -> None:
    branches = ", ".join(
        f"{name} = {name} () => (float[batch,4] {name}_y) {{ e = {operator}(x) {name}_y = Relu(e) }}"
        for name, operator in (("then_branch", "Exp"), ("else_branch", "Tanh"))
    )
    text = f"""(float[batch,4] x) => (float[batch,4] y) <float zero = {{0}}> {{
        sum = ReduceSum <keepdims = 0> (x)
        positive = Greater(sum, zero)
        chosen = If (positive) <{branches}>
        y = Neg(chosen)
    }}"""
    path = save(tmp_path / "if.onnx", HEAD + text)
    assert counts(profile(path, 2, runs=2)) == {"ReduceSum": 1, "Greater": 1, "If": 1, "Neg": 1}


def test_nothing_is_left_behind(dense: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(empty))
    monkeypatch.chdir(empty)
    profile(dense, 1, runs=1)
    with pytest.raises(InputError):
        profile(save(tmp_path / "loose.onnx", LOOSE), 1, runs=1)
    assert list(empty.iterdir()) == []


def test_errors_are_one_line(dense: Path, tmp_path: Path) -> None:
    def refused(path: Path, message: str, batch_size: int = 1, **arguments: Any) -> None:
        with pytest.raises(InputError, match=message) as raised:
            profile(path, batch_size, **arguments)
        assert "\n" not in str(raised.value)

    refused(tmp_path / "none.onnx", r"none\.onnx does not exist")
    (tmp_path / "bad.onnx").write_bytes(b"\xff\xff")
    refused(tmp_path / "bad.onnx", r"bad\.onnx is no ONNX model")
    (tmp_path / "empty.onnx").write_bytes(b"")
    refused(tmp_path / "empty.onnx", r"empty\.onnx is no model that ONNX Runtime can load")
    refused(dense, "unknown provider 'gpu'", provider="gpu")
    refused(dense, "at least 1 run of 1 example, got 0 runs of 1", runs=0)
    refused(dense, "at least 1 run of 1 example, got 100 runs of 0", batch_size=0)
    fixed = save(tmp_path / "fixed.onnx", HEAD + "(float[4,2] x) => (float[4,2] y) { y = Relu(x) }")
    refused(fixed, r"fixed\.onnx is made for batch size 4, got 1")
    assert profile(fixed, 4, runs=1).batch_size == 4
    loose = save(tmp_path / "loose.onnx", LOOSE)
    refused(loose, r"loose\.onnx has an input 'x' whose sizes are not fixed")


def event(name: str, ts: int, dur: int, provider: str = "CPUExecutionProvider", index: int = 0) -> dict[str, Any]:
    """Make an event as ONNX Runtime writes them; the operator is the last part of the name."""
    if name == "model_run":
        return {"cat": "Session", "name": name, "ts": ts, "dur": dur, "pid": 1, "tid": 1, "args": {}}
    operator = name.rpartition("/")[2].partition("_")[0]
    args = {"op_name": operator, "provider": provider, "node_index": str(index)}
    return {"cat": "Node", "name": f"{name}_kernel_time", "ts": ts, "dur": dur, "pid": 1, "tid": 1, "args": args}


def chain(*names: str) -> list[NodeInfo]:
    """Make nodes that take each other's values."""
    return [
        NodeInfo(name=name, operator=name.rpartition("/")[2], inputs=(str(i),), outputs=(str(i + 1),))
        for i, name in enumerate(names)
    ]


def test_nodes_of_another_provider_are_named() -> None:
    nodes = chain("a/Gemm", "a/act/Erf", "b/Gemm", "b/Custom")
    cuda = "CUDAExecutionProvider"
    events = [
        event("model_run", 0, 100),
        event("a/Gemm", 5, 30, cuda),
        event("a/act/Erf", 40, 20),
        event("b/Gemm", 65, 10, cuda),
        event("b/Custom", 80, 20, "MyExecutionProvider"),
    ]
    found = fold(events, nodes, nodes, mixed=["a.act"], provider="cuda", batch_size=7)
    assert found.fallen_back == (
        FallenBack("a/act/Erf", "Erf", "cpu"),
        FallenBack("b/Custom", "Custom", "MyExecutionProvider"),
    )
    assert [(row.layer, row.operator, row.provider, row.microseconds, row.share) for row in found.rows] == [
        ("a", "Gemm", "cuda", 30, 30 / 80),
        ("a.act", "Erf", "cpu", 20, 20 / 80),
        ("b", "Gemm", "cuda", 10, 10 / 80),
        ("b", "Custom", "MyExecutionProvider", 20, 20 / 80),
    ]
    assert (found.provider, found.batch_size, found.runs, found.microseconds) == ("cuda", 7, 1, 100)
    assert found.to_dict()["fallen_back"][0] == {"node": "a/act/Erf", "operator": "Erf", "provider": "cpu"}
    # TensorRT leaves to CUDA what it can't run itself: that is part of the provider.
    assert [node.node for node in fold(events, nodes, nodes, provider="tensorrt").fallen_back] == [
        "a/act/Erf",
        "b/Custom",
    ]


def test_the_first_runs_do_not_count_and_neither_do_outliers() -> None:
    nodes = chain("a/Exp")
    times = [900, 5, 5, 6, 6, 5, 5, 6, 4000]
    events = [{"cat": "Session", "name": "session_initialization", "ts": 0, "dur": 9, "tid": 1, "args": {}}]
    for i, dur in reversed(list(enumerate(times))):
        events += [event("model_run", 10_000 * i, dur + 2), event("a/Exp", 10_000 * i, dur)]
    found = fold(events, nodes, nodes, skip=1)
    assert found.runs == 8
    assert found.rows[0].microseconds == np.mean([5, 5, 6, 6])
    assert found.microseconds == np.mean([7, 7, 8, 8])
    with pytest.raises(InputError, match="the profile holds no run of the model after the first 9"):
        fold(events, nodes, nodes, skip=9)


def test_nodes_of_one_operator_are_one_row_and_names_may_be_missing() -> None:
    file = [NodeInfo(name="", operator="Exp", inputs=(str(i),), outputs=(str(i + 1),)) for i in range(3)]
    file.append(NodeInfo(name="", operator="Relu", inputs=("3",), outputs=("4",)))
    events = [event("model_run", 0, 9), event("Exp_0", 0, 1, index=0), event("Exp_1", 2, 2, index=1)]
    events += [event("Exp_2", 5, 3, index=2)]
    found = fold(events, file, file[:3])
    assert [(row.layer, row.operator, row.count, row.microseconds) for row in found.rows] == [("other", "Exp", 3, 6)]
    assert found.gone == ("Relu",)


def test_the_layer_of_a_name() -> None:
    mixed = ["layer1.activation", "blocks.0", "blocks.0.act"]
    assert layer_of("layer1/activation/sigmoid_tanh/Tanh", mixed) == "layer1.activation"
    assert layer_of("layer1/activation/Concat", mixed) == "layer1.activation"
    assert layer_of("layer1/activation_2/Relu", mixed) == "layer1.activation_2"
    assert layer_of("blocks/0/act/relu/Relu", mixed) == "blocks.0.act"
    assert layer_of("layer1/linear/Gemm", mixed) == "layer1.linear"
    assert layer_of("Gemm", mixed) == layer_of("", mixed) == "other"


FILE = [
    NodeInfo(name="a/Conv", operator="Conv", inputs=("x", "w"), outputs=("a",)),
    NodeInfo(name="a/act/Relu", operator="Relu", inputs=("a",), outputs=("r",)),
    NodeInfo(name="b/MatMul", operator="MatMul", inputs=("r", "scale"), outputs=("m",)),
    NodeInfo(name="", operator="Exp", inputs=("m",), outputs=("y",)),
]


@pytest.mark.parametrize(
    ("name", "outputs", "layer"),
    [
        ("a/act/Relu", ("r",), "a.act"),  # as in the file
        ("fused a/Conv", ("r",), "a"),  # the name goes before the outputs
        ("a_nchwc", ("reorder_token_0",), "a"),  # of a value
        ("r_mul_nchwc_token_3", ("reorder_token_1",), "a.act"),
        ("b/MatMul/MatMulScaleFusion/", ("m",), "b"),
        ("ReorderOutput", ("r",), "a.act"),
        ("SkipNormalization", ("", "m"), "b"),
        ("InsertedPrecisionFreeCast_scale", ("InsertedPrecisionFreeCast_scale",), "b"),  # a constant's taker
        ("", ("InsertedPrecisionFreeCast_r",), "a.act"),
        ("ReorderInput", ("reorder_token_2",), "other"),
        ("", ("y",), "other"),
        ("Less", ("below",), "other"),
        ("Exp_3", (), "other"),
    ],
)
def test_the_layer_of_a_node_that_runs(name: str, outputs: tuple[str, ...], layer: str) -> None:
    assert layers([NodeInfo(name=name, operator="Any", outputs=outputs)], FILE, []) == [layer]
