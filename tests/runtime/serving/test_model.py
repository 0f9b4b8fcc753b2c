"""What a served model takes, which requests share a run, and what comes out."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx.reference
import pytest
from numpy.typing import NDArray

from smx.errors import InputError
from smx.runtime.serving.batcher import Batching
from smx.runtime.serving.model import Loading, ServedModel
from smx.runtime.serving.protocol import Cause, InferRequest, InferResponse, Refusal, RequestedOutput, Tensor
from smx.runtime.settings import Settings
from smx.runtime.tuning import Tuning, fingerprint, tuning_path
from tests.runtime.serving import models

Arrays = Mapping[str, NDArray[Any]]


def load(path: Path, **loading: Any) -> ServedModel:
    return ServedModel(path, "m", "1", Loading(**loading), seen.append)


seen: list[int] = []


@pytest.fixture(autouse=True)
def nothing_seen() -> None:
    seen.clear()


def ask(inputs: Arrays, *outputs: RequestedOutput, **parameters: Any) -> InferRequest:
    tensors = [Tensor(name, array) for name, array in inputs.items()]
    return InferRequest(inputs=tensors, outputs=outputs, id="mine", parameters=parameters)


async def together(model: ServedModel, *requests: InferRequest) -> list[Any]:
    """Ask at the same time."""
    return await asyncio.gather(*map(model.infer, requests), return_exceptions=True)


def answers(model: ServedModel, *requests: InferRequest) -> list[Any]:
    return asyncio.run(together(model, *requests))


def values(answer: InferResponse) -> dict[str, NDArray[Any]]:
    assert isinstance(answer, InferResponse), answer
    return {tensor.name: tensor.array for tensor in answer.outputs}


RNG = np.random.default_rng(0)


def floats(*shape: int) -> NDArray[np.float32]:
    return RNG.standard_normal(shape).astype(np.float32)


SHARED: list[tuple[str, dict[str, Any], list[Arrays]]] = [
    (models.PLAIN, models.WEIGHTS, [{"x": floats(n, 4)} for n in (1, 3, 0, 2)]),
    (models.PAIR, {}, [{"v": RNG.integers(0, 9, (n, 3)), "u": floats(n, 2)} for n in (2, 1, 4)]),
    (models.OPEN, {}, [{"x": floats(2, n)} for n in (3, 3, 5, 3)]),
    (models.EMBEDDING, models.TABLE, [{"x": RNG.integers(0, 5, (n, 2))} for n in (1, 3)]),
    (models.LSTM, models.LSTM_WEIGHTS, [{"x": floats(n, 5, 3)} for n in (2, 1, 3)]),
    ("(uint8[b,2] x) => (int32[b,2] y) { y = Cast <to = 6> (x) }", {}, [{"x": np.array([[3, 255]], np.uint8)}] * 2),
    ("(bool[b,2] x) => (bool[b,2] y) { y = Not(x) }", {}, [{"x": np.array([[True, False]])}] * 3),
]


@pytest.mark.parametrize(
    ("text", "weights", "inputs"), SHARED, ids=lambda value: value[:20] if isinstance(value, str) else ""
)
def test_answers_together_are_those_of_the_reference_alone(
    text: str, weights: dict[str, Any], inputs: list[Arrays], tmp_path: Path
) -> None:
    path = models.make(tmp_path / "m.onnx", text, weights)
    model, reference = load(path), onnx.reference.ReferenceEvaluator(str(path))
    assert model.batched
    for each, answer in zip(inputs, answers(model, *map(ask, inputs)), strict=True):
        found = values(answer)
        assert (answer.model_name, answer.model_version, answer.id) == ("m", "1", "mine")
        for name, expected in zip(reference.output_names, reference.run(None, dict(each)), strict=True):
            assert found[name].dtype == expected.dtype
            np.testing.assert_allclose(found[name], expected, rtol=1e-5, atol=1e-6)
    assert sum(seen) == sum(len(next(iter(each.values()))) for each in inputs)
    assert len(seen) < len(inputs)  # some ran together


AXES = "<int64[1] axes = {0}>"
MIXING = [
    f"(float[b,3] x) => (float[b,3] y) {AXES} {{ m = ReduceMean(x, axes) y = Sub(x, m) }}",
    f"(float[b,3] x) => (float[b,3] y) {AXES} {{ m = ReduceMax(x, axes) z = Sub(x, x) y = Add(z, m) }}",
    "(float[b,3] x) => (float[b,3] y) { y = Softmax <axis = 0> (x) }",
    # As large as float32 goes, or as small: what is equal depends on the scale.
    "(float[b,3] x) => (float[b,3] y) <float[1] small = {1e-6}> { s = Softmax <axis = 0> (x) y = Mul(s, small) }",
    "(float[b,3] x) => (float[b,3] y) <float[1] large = {1e30}> { s = Softmax <axis = 0> (x) y = Mul(s, large) }",
    "(int64[b,1] x) => (int64[b,1] y) <int64 axis = {0}> { y = CumSum(x, axis) }",
    "(int32[b,1] x) => (int32[b,1] y) <int64[1] axes = {0}> { m = ReduceMax(x, axes) z = Sub(x, x) y = Add(z, m) }",
    "(bool[b,1] x) => (bool[b,1] y) <int64[1] axes = {0}> { c = Cast <to = 6> (x) m = ReduceMax(c, axes)"
    " z = Sub(c, c) s = Add(z, m) y = Cast <to = 9> (s) }",
    # The second output alone mixes; an output without the batch; one that counts the examples; a length by the values.
    f"(float[b,3] x) => (float[b,3] y, float[b,3] z) {AXES} {{ y = Neg(x) m = ReduceMean(x, axes) z = Sub(x, m) }}",
    f"(float[b,3] x) => (float[1,3] y) {AXES} {{ y = ReduceSum(x, axes) }}",
    "(float[b,3] x) => (int64[2] y) { y = Shape(x) }",
    "(float[b,3] x) => (int64[n,2] y) { i = NonZero(x) y = Transpose(i) }",
    "(float[b,3] x) => (float[n,1] y) <int64[2] shape = {-1, 1}> { y = Reshape(x, shape) }",
    # An input that is not a batch.
    "(float[b,3] x, float[1] scale) => (float[b,3] y) { y = Mul(x, scale) }",
    models.FIXED,
    models.SCALAR,
]


@pytest.mark.parametrize("text", MIXING)
def test_examples_that_are_not_independent_do_not_share_a_run(text: str, tmp_path: Path) -> None:
    model = load(models.make(tmp_path / "m.onnx", text))
    assert not model.batched


def test_dynamic_quantization_mixes(tmp_path: Path) -> None:
    """Its scale is that of the largest value of the whole batch: an answer would depend on the others' requests."""
    text = """(float[b,64] x) => (float[b,10] y) {
        q, scale, zero = DynamicQuantizeLinear(x)  z = DequantizeLinear(q, scale, zero)  y = MatMul(z, w)
    }"""
    weights = {"w": np.random.default_rng(0).standard_normal((64, 10)).astype(np.float32)}
    assert not load(models.make(tmp_path / "m.onnx", text, weights)).batched


def test_a_model_that_mixes_answers_each_request_as_the_reference(tmp_path: Path) -> None:
    path = models.make(tmp_path / "m.onnx", MIXING[0])
    model, reference = load(path), onnx.reference.ReferenceEvaluator(str(path))
    inputs = [floats(n, 3) for n in (2, 3, 1)]
    for x, answer in zip(inputs, answers(model, *(ask({"x": x}) for x in inputs)), strict=True):
        (expected,) = map(np.asarray, reference.run(None, {"x": x}))
        np.testing.assert_allclose(values(answer)["y"], expected, atol=1e-6)
    assert seen == [2, 3, 1]


APART: list[tuple[str, dict[str, tuple[int, ...]]]] = [
    ("(float[1,4] x, float t) => (float[1,4] y) { y = Mul(x, t) }", {"x": (1, 4), "t": ()}),
    ("(float t, float[1,4] x) => (float[1,4] y) { y = Mul(x, t) }", {"x": (1, 4), "t": ()}),
    (
        "(float[10,4] x, float[1,5] y) => (float[10,9] z) <int64[2] shape = {10, 5}>"
        " { rows = Expand(y, shape) z = Concat <axis = 1> (x, rows) }",
        {"x": (10, 4), "y": (1, 5)},
    ),
    ("(float[b,4] x, float[1] scale) => (float[b,4] y) { y = Mul(x, scale) }", {"x": (3, 4), "scale": (1,)}),
]


@pytest.mark.parametrize(("text", "shapes"), APART)
def test_inputs_that_do_not_share_the_first_axis(text: str, shapes: dict[str, tuple[int, ...]], tmp_path: Path) -> None:
    path = models.make(tmp_path / "m.onnx", text)
    model, reference = load(path), onnx.reference.ReferenceEvaluator(str(path))
    assert not model.batched
    inputs = {name: np.asarray(floats(*shape)) for name, shape in shapes.items()}
    (answer,) = answers(model, ask(inputs))
    (expected,) = map(np.asarray, reference.run(None, inputs))
    (found,) = values(answer).values()
    np.testing.assert_array_equal(found, expected)


def test_a_fixed_batch_size_answers_any_number_of_examples(tmp_path: Path) -> None:
    model = load(models.make(tmp_path / "m.onnx", models.FIXED))
    inputs = [floats(n, 3) for n in (1, 4, 9, 0)]
    for x, answer in zip(inputs, answers(model, *(ask({"x": x}) for x in inputs)), strict=True):
        np.testing.assert_array_equal(values(answer)["y"], -x)


def test_an_empty_batch_never_reaches_a_recurrent_network(tmp_path: Path) -> None:
    """ONNX Runtime would abort the process."""
    model = load(models.make(tmp_path / "m.onnx", models.LSTM, models.LSTM_WEIGHTS))
    (empty,) = answers(model, ask({"x": floats(0, 5, 3)}))
    assert values(empty)["y"].shape == (0, 2)
    empty, one = answers(model, ask({"x": floats(0, 5, 3)}), ask({"x": floats(1, 5, 3)}))
    assert (values(empty)["y"].shape, values(one)["y"].shape) == ((0, 2), (1, 2))


def test_a_bad_index_fails_alone(tmp_path: Path) -> None:
    model = load(models.make(tmp_path / "m.onnx", models.EMBEDDING, models.TABLE))
    good, bad, other = answers(model, *(ask({"x": np.array([[i, 0]])}) for i in (4, 5, 1)))
    assert isinstance(bad, Refusal)
    assert bad.cause is Cause.INVALID
    assert "can't run this input" in str(bad)
    np.testing.assert_array_equal(values(good)["y"], models.TABLE["w"][[[4, 0]]])
    np.testing.assert_array_equal(values(other)["y"], models.TABLE["w"][[[1, 0]]])


X = np.zeros((1, 4), np.float32)
REFUSED: list[tuple[InferRequest, Cause, str]] = [
    (ask({"z": X}), Cause.INVALID, "m takes the inputs ['x'] once each, got ['z']"),
    (ask({"x": X, "z": X}), Cause.INVALID, "got ['x', 'z']"),
    (InferRequest(inputs=[Tensor("x", X)] * 2), Cause.INVALID, "got ['x', 'x']"),
    (InferRequest(inputs=[Tensor("x", X)] * 9999), Cause.INVALID, "got ['x', 'x'"),
    (ask({"x": X.astype(np.float64)}), Cause.INVALID, "the input 'x' must be FP32, got FP64"),
    (ask({"x": np.full((1, 4), "a", object)}), Cause.INVALID, "must be FP32, got BYTES"),
    (ask({"x": X[:, :3]}), Cause.INVALID, "must have the shape [-1, 4], got [1, 3]"),
    (ask({"x": X[0]}), Cause.INVALID, "must have the shape [-1, 4], got [4]"),
    (ask({"x": X[..., None]}), Cause.INVALID, "must have the shape [-1, 4], got [1, 4, 1]"),
    (ask({"x": np.zeros((11, 4), np.float32)}), Cause.TOO_LARGE, "a request may have 10 rows, got 11"),
    (ask({"x": X}, RequestedOutput(name="z")), Cause.INVALID, "m has the outputs ['y'], each once; wanted were ['z']"),
    (ask({"x": X}, *[RequestedOutput(name="y")] * 2), Cause.INVALID, "each once; wanted were ['y', 'y']"),
    (
        ask({"x": X}, RequestedOutput(name="y", parameters={"classification": "1"})),
        Cause.INVALID,
        "classification must",
    ),
    (ask({"x": X}, top_k=-1), Cause.INVALID, "top_k must be a whole number, at least 0, got -1"),
]


@pytest.mark.parametrize(("request_", "cause", "part"), REFUSED)
def test_what_a_model_does_not_take(request_: InferRequest, cause: Cause, part: str, tmp_path: Path) -> None:
    model = load(models.make(tmp_path / "m.onnx"), max_rows=10)
    (refusal,) = answers(model, request_)
    assert isinstance(refusal, Refusal), refusal
    assert refusal.cause is cause
    assert part in str(refusal)


def test_inputs_need_as_many_rows(tmp_path: Path) -> None:
    model = load(models.make(tmp_path / "m.onnx", models.PAIR))
    (refusal,) = answers(model, ask({"u": floats(2, 2), "v": np.zeros((3, 3), np.int64)}))
    assert "all inputs need as many rows, got [2, 3]" in str(refusal)


def test_open_lengths_may_not_be_empty(tmp_path: Path) -> None:
    (refusal,) = answers(load(models.make(tmp_path / "m.onnx", models.OPEN)), ask({"x": floats(1, 0)}))
    assert "must have the shape [-1, -1], got [1, 0]" in str(refusal)


@pytest.mark.parametrize(
    "text",
    [
        "(string[b,1] x) => (string[b,1] y) { y = Identity(x) }",
        "(float[b,1] x) => (seq(float[b,1]) y) { y = SequenceConstruct(x) }",
    ],
)
def test_what_is_no_tensor_of_numbers_is_not_served(text: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"m\.onnx has '[xy]' of .*; only tensors of numbers are served"):
        load(models.make(tmp_path / "m.onnx", text))


def test_metadata(tmp_path: Path) -> None:
    assert load(models.make(tmp_path / "m.onnx", models.PAIR)).metadata == {
        "name": "m",
        "versions": ["1"],
        "platform": "onnxruntime_onnx",
        "inputs": [
            {"name": "u", "datatype": "FP32", "shape": [-1, 2]},
            {"name": "v", "datatype": "INT64", "shape": [-1, 3]},
        ],
        "outputs": [
            {"name": "p", "datatype": "FP32", "shape": [-1, 2]},
            {"name": "q", "datatype": "INT64", "shape": [-1, 3]},
        ],
    }


def test_class_names_stand_only_with_outputs_of_as_many_classes(tmp_path: Path) -> None:
    text = "(float[b,2] x) => (float[b,2] y, float[b,4] z) { y = Neg(x) z = Concat <axis = 1> (x, y) }"
    model = load(models.make(tmp_path / "m.onnx", text))
    model.class_names = ("cat", "dog")
    wanted = [RequestedOutput(name=name, parameters={"classification": 1}) for name in "zy"]
    (answer,) = answers(model, ask({"x": np.array([[3, 1]], np.float32)}, *wanted, top_k=1))
    found = {name: array.tolist() for name, array in values(answer).items()}
    assert (found["z"], found["y"]) == ([["3.000000:0"]], [["-1.000000:1:dog"]])
    assert found["class_names"] == [["dog"]]
    assert [tensor.name for tensor in answer.outputs[:2]] == ["z", "y"]  # in the order in which they were wanted


def test_an_output_of_the_models_own_is_not_hidden_by_what_is_added(tmp_path: Path) -> None:
    model = load(
        models.make(tmp_path / "m.onnx", "(float[b,2] x) => (float[b,2] probabilities) { probabilities = Neg(x) }")
    )
    x = floats(1, 2)
    refusal, answer = answers(model, ask({"x": x}, probabilities=True), ask({"x": x}, top_k=1))
    assert isinstance(refusal, Refusal)
    assert refusal.cause is Cause.INVALID
    assert str(refusal) == "m has an output 'probabilities' of its own; ask for that"
    np.testing.assert_array_equal(values(answer)["probabilities"], -x)


def test_without_batching_each_request_runs_alone(tmp_path: Path) -> None:
    model = load(models.make(tmp_path / "m.onnx"), batching=Batching(max_rows=1))
    inputs = [floats(1, 4) for _ in range(4)]
    for x, answer in zip(inputs, answers(model, *(ask({"x": x}) for x in inputs)), strict=True):
        np.testing.assert_allclose(values(answer)["y"], x @ models.WEIGHTS["w"], rtol=1e-5, atol=1e-6)
    assert seen == [1] * 4


def test_a_refused_input_says_what_can_be_done(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=re.escape("does not exist; expected an ONNX model")):
        load(tmp_path / "none.onnx")


NEG = "(float[b,3] x) => (float[b,3] y) { y = Neg(x) }"
ABS = "(float[b,3] x) => (float[b,3] y) { y = Abs(x) }"
BEST = Settings(threads=2, optimization="basic")


def tuned(path: Path, **fields: Any) -> Path:
    """Put a tuning beside a model."""
    tuning = Tuning(model=fingerprint(path), settings=BEST, provider="cpu", batch_size=1, goal="p50")
    tuning_path(path).write_text(replace(tuning, **fields).to_json())
    return path


def test_what_smx_tune_found_is_used(tmp_path: Path) -> None:
    path = tuned(models.make(tmp_path / "m.onnx"))
    assert load(path).session.settings == BEST
    assert load(path, threads=1).session.settings == replace(BEST, threads=1)
    # The defaults of a bench keep the cores busy that requests need.
    idle = load(tuned(path, settings=Settings())).session.settings
    assert idle == load(models.make(tmp_path / "n.onnx")).session.settings == Settings(spinning=False)
    session = load(tuned(path, model="another"), threads=3).session
    assert session.settings == Settings(threads=3, spinning=False)
    assert session.note == "m.onnx.tune.json is not used: the model is another one since smx tune"


def test_the_variant_that_smx_tune_put_beside_a_model_answers(tmp_path: Path) -> None:
    path, variant = models.make(tmp_path / "m.onnx", NEG), models.make(tmp_path / "m.tuned.onnx", ABS)
    tuned(path, file=variant.name, file_hash=fingerprint(variant))
    (answer,) = answers(load(path), ask({"x": np.full((1, 3), 2, np.float32)}))
    assert (values(answer)["y"] == 2).all()
