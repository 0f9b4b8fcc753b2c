"""Models of other tools, with whatever ONNX allows: every command answers, or ends in one line."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from smx.errors import InputError
from smx.runtime.serving.model import Loading, ServedModel
from smx.runtime.session import Session
from tests.conftest import refused, smx_many

FEATURES, CLASSES = 64, 10
WEIGHT = np.random.default_rng(0).normal(size=(FEATURES, CLASSES)).astype(np.float32)
WHOLE = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
ANSWERS = {"zipmap", "words", "labels first", *WHOLE, "bool", "double", "float16"}
"""What `smx predict` must answer."""


def value(name: str, kind: int, shape: Sequence[int | str]) -> Any:
    return helper.make_tensor_value_info(name, kind, shape)


def sequence(name: str, kind: int, shape: Sequence[int | str] = ("B", CLASSES)) -> Any:
    return helper.make_tensor_sequence_value_info(name, kind, shape)


def maps(name: str, key: int) -> Any:
    each = helper.make_map_type_proto(key, helper.make_tensor_type_proto(TensorProto.FLOAT, ()))
    return helper.make_value_info(name, helper.make_sequence_type_proto(each))


def model(nodes: Sequence[Any], outputs: Sequence[Any], inputs: Sequence[Any] = (), opset: int = 18) -> onnx.ModelProto:
    """Make a model of x (B, 64) and its scores (B, 10), with further nodes."""
    own = not inputs
    inputs = inputs or [value("x", TensorProto.FLOAT, ("B", FEATURES))]
    scores = [helper.make_node("MatMul", ["x", "w"], ["scores"])] if own else []
    graph = helper.make_graph([*scores, *nodes], "other", inputs, outputs, [onnx.numpy_helper.from_array(WEIGHT, "w")])
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("ai.onnx.ml", 3), helper.make_opsetid("custom", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def node(operator: str, inputs: Sequence[str], outputs: Sequence[str], domain: str = "", **attributes: Any) -> Any:
    return helper.make_node(operator, inputs, outputs, domain=domain, **attributes)


def of_input(kind: str) -> onnx.ModelProto:
    """Make a model whose input has a type."""
    number = {"double": "DOUBLE", "float16": "FLOAT16"}.get(kind, kind.upper())
    nodes = [node("Cast", ["x"], ["cast"], to=TensorProto.FLOAT), node("MatMul", ["cast", "w"], ["scores"])]
    scores = value("scores", TensorProto.FLOAT, ("B", CLASSES))
    return model(nodes, [scores], [value("x", getattr(TensorProto, number), ("B", FEATURES))])


def models() -> dict[str, onnx.ModelProto]:
    scores = value("scores", TensorProto.FLOAT, ("B", CLASSES))
    label = value("label", TensorProto.INT64, ("B",))
    arg = node("ArgMax", ["scores"], ["label"], axis=1, keepdims=0)
    soft = node("Softmax", ["scores"], ["soft"])
    words = [f"class {i}" for i in range(CLASSES)]
    numbers = {"classlabels_int64s": [*range(CLASSES)]}
    texts = {"classlabels_strings": words}
    zipmap, worded = (node("ZipMap", ["soft"], ["maps"], "ai.onnx.ml", **keys) for keys in (numbers, texts))
    split = node("SplitToSequence", ["scores"], ["parts"], axis=0)
    none = node("Slice", ["scores", "start", "start", "axis"], ["none"])
    start, axis = (node("Constant", [], [name], value_ints=[number]) for name, number in (("start", 0), ("axis", 1)))
    float_, text = TensorProto.FLOAT, TensorProto.STRING
    several = [
        value("x", float_, ("B", 4)),
        value("i", TensorProto.INT64, ("B", 4)),
        value("b", TensorProto.BOOL, ("B", 4)),
    ]
    where = [node("Cast", ["i"], ["f"], to=float_), node("Where", ["b", "x", "f"], ["scores"])]
    cast = node("Cast", ["x"], ["f"], to=float_)
    product, brain = node("MatMul", ["f", "w"], ["scores"]), TensorProto.BFLOAT16
    symbolic = [value("x", float_, ("B", "N"))]
    return {
        "zipmap": model([arg, soft, zipmap], [label, maps("maps", TensorProto.INT64)]),
        "words": model([soft, worded], [maps("maps", text)]),
        "labels first": model([arg], [label, scores]),
        "scalar": model([node("ReduceSum", ["scores"], ["sum"], keepdims=0)], [value("sum", float_, ())]),
        "sequence": model([split], [sequence("parts", float_)]),
        "strings": model([node("Cast", ["scores"], ["text"], to=text)], [value("text", text, ("B", CLASSES))]),
        "no columns": model([start, axis, none], [value("none", float_, ("B", 0))]),
        "opset 99": model([], [scores], opset=99),
        "custom": model([node("Own", ["scores"], ["own"], "custom")], [value("own", float_, ("B", CLASSES))]),
        "several": model(where, [value("scores", float_, ("B", 4))], several),
        "symbolic": model([node("Relu", ["x"], ["y"])], [value("y", float_, ("B", "N"))], symbolic),
        "scalar input": model([node("Relu", ["x"], ["y"])], [value("y", float_, ())], [value("x", float_, ())]),
        "string input": model([cast, product], [scores], [value("x", text, ("B", FEATURES))]),
        "sequence input": model(
            [node("ConcatFromSequence", ["x"], ["y"], axis=0)],
            [value("y", float_, ("B", FEATURES))],
            [sequence("x", float_, ("B", FEATURES))],
        ),
        "bfloat16": model([node("Cast", ["scores"], ["y"], to=brain)], [value("y", brain, ("B", CLASSES))]),
        "constant": model([], [value("w", float_, (FEATURES, CLASSES))]),
        **{kind: of_input(kind) for kind in (*WHOLE, "bool", "double", "float16")},
    }  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with all models, and examples of whole numbers."""
    place = tmp_path_factory.mktemp("others")
    for name, made in models().items():
        (place / f"{name}.onnx").write_bytes(made.SerializeToString())
    np.save(place / "x.npy", np.random.default_rng(1).integers(0, 2, (3, FEATURES)).astype(np.uint8))
    return place


def test_commands_answer_or_say_why(folder: Path, run: Path, tmp_path: Path) -> None:
    names, commands = [*models()], []
    for name in names:
        path = folder / f"{name}.onnx"
        commands += [
            ("inspect", path),
            ("predict", path, folder / "x.npy", "--json", tmp_path / f"{name}.json"),
            ("verify", run / "model.pt", path, "--batch-sizes", "2"),
        ]
    quick = ("--rounds", "1", "--batch-sizes", "2")
    commands += [("bench", folder / f"{name}.onnx", *quick) for name in ("words", "uint64", "string input", "symbolic")]
    answered = set()
    for result, command in zip(smx_many(*commands), commands, strict=True):
        name, kind = Path(str(command[2 if command[0] == "verify" else 1])).stem, command[0]
        assert "Traceback" not in result.stderr, (kind, name, result.stderr)
        if result.returncode == 0:
            answered.add((kind, name))
        elif (kind, result.returncode) != ("verify", 3):
            refused(result, 2)
    assert {name for kind, name in answered if kind == "predict"} == ANSWERS
    assert {name for kind, name in answered if kind == "inspect"} == {*names} - {"opset 99", "custom"}
    assert {name for kind, name in answered if kind == "bench"} == {"words", "uint64"}
    scores = np.load(folder / "x.npy").astype(np.float64) @ WEIGHT
    odds = np.exp(scores - scores.max(1, keepdims=True))
    for name in ANSWERS:
        report = json.loads((tmp_path / f"{name}.json").read_text())
        found = np.array([each["probabilities"] for each in report["predictions"]])
        np.testing.assert_allclose(found, odds / odds.sum(1, keepdims=True), atol=2e-3 if name == "float16" else 1e-5)
        assert report["classes"] == [f"class {i}" if name == "words" else str(i) for i in range(CLASSES)]


def test_what_is_timed_and_served(folder: Path) -> None:
    """As `smx bench` and `smx serve` do it."""
    timed, served = set(), set()
    for name in models():
        path = folder / f"{name}.onnx"
        with suppress(InputError):
            session = Session(path)
            session.bound(*session.random_inputs(session.batch or 2))()
            timed.add(name)
        with suppress(InputError):
            served.add(ServedModel(path, name, "1", Loading(max_rows=4)).name)
    assert timed >= ANSWERS | {"sequence", "strings", "no columns", "several"}
    assert served >= ANSWERS - {"zipmap", "words"} | {"no columns", "several", "symbolic", "scalar"}


@pytest.mark.parametrize("kind", WHOLE)
def test_whole_numbers_never_wrap(kind: str, folder: Path) -> None:
    session, limits = Session(folder / f"{kind}.onnx"), np.iinfo(kind)
    most = np.full((1, FEATURES), limits.max)
    expected = most.astype(np.float64) @ WEIGHT
    np.testing.assert_allclose(session.run(most), expected, rtol=1e-3, atol=1e-3 * np.abs(expected).max())
    for beyond in (limits.max + 1, limits.min - 1):
        if -(2**63) <= beyond < 2**64:
            with pytest.raises(
                InputError, match=f"expects whole numbers that {kind} can hold, got {beyond} to {beyond}"
            ):
                session.run(np.full((1, FEATURES), beyond))
