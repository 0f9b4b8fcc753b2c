from __future__ import annotations

import json
from typing import Any

import numpy as np
import onnx
import pytest

from smx.errors import InputError
from smx.runtime import Session, check_parity
from smx.runtime.metadata import ModelInfo
from smx.runtime.parity.check import ATOL, CHUNK, RTOL
from smx.runtime.parity.compare import Array
from smx.runtime.parity.inputs import synthetic_inputs

DOUBLE = '<ir_version: 10, opset_import: ["" : 18]> double (float[N, 3] x) => (float[N, 3] twice) { twice = Add(x, x) }'
TWO = """
<ir_version: 10, opset_import: ["" : 18]>
two (float[N, 3] x, float[N, 3] y) => (float[N, 3] sum, float[N, 1] mean)
{ sum = Add(x, y)  axes = Constant <value_ints = [1]> ()  mean = ReduceMean <keepdims = 1> (sum, axes) }
"""


def session(text: str, **tolerance: float) -> Session:
    """Load a model given as text; a tolerance becomes its metadata's."""
    proto = onnx.parser.parse_model(text)
    if tolerance:
        info = ModelInfo(smx_version="0", architecture="", layout="", pool=(), layers=(), tolerance=tolerance)
        onnx.helper.set_model_props(proto, info.to_properties())
    return Session(proto.SerializeToString())


def twice(x: Array) -> Array:
    return 2 * x


def ones(examples: int, value: float = 1.0) -> Array:
    return np.full((examples, 3), value, np.float32)


class Recorded:
    """A reference that is off by `error`, and the numbers of examples that it was called with."""

    def __init__(self, error: float = 0.0) -> None:
        self.error = error
        self.calls: list[int] = []

    def __call__(self, x: Array) -> Array:
        self.calls.append(len(x))
        return 2 * x.astype(np.float64) + self.error


def test_every_set_is_run_in_every_batch_size(monkeypatch: pytest.MonkeyPatch) -> None:
    double, runs, progress = session(DOUBLE), [], []
    call = double._call

    def noted(feed: Any) -> Any:
        runs.append(len(feed["x"]))
        return call(feed)

    monkeypatch.setattr(double, "_call", noted)
    sets = {"data": ones(20), "few": ones(1), "even": ones(16)}
    report = check_parity(
        twice, double, sets, batch_sizes=(8, 16, 1000), on_progress=lambda name, size: progress.append((name, size))
    )
    assert runs == [8, 8, 4, 16, 4, 1, 8, 8, 16]
    assert progress == [("data", 8), ("data", 16), ("few", 8), ("even", 8), ("even", 16)]
    assert [(row.inputs, row.output, row.batch_size, row.examples) for row in report.comparisons] == [
        ("data", "twice", 8, 20), ("data", "twice", 16, 20), ("few", "twice", 8, 1),
        ("even", "twice", 8, 16), ("even", "twice", 16, 16),
    ]  # fmt: skip
    assert (report.passed, report.max_abs, report.scale, report.nearer) == (True, 0, 2, {})


def test_a_reference_gets_some_examples_at_a_time() -> None:
    reference, arbiter = Recorded(), Recorded()
    x = np.random.default_rng(0).random((2 * CHUNK + 1, 3), np.float32)
    assert check_parity(reference, session(DOUBLE), {"x": x}, arbiter=arbiter, batch_sizes=(CHUNK,)).passed
    assert reference.calls == arbiter.calls == [CHUNK, CHUNK, 1]


def test_the_tolerance_grows_with_the_values() -> None:
    double, reference = session(DOUBLE), Recorded(1e-3)
    large = check_parity(reference, double, {"large": ones(2, -500)}, rtol=0)
    assert large.scale == pytest.approx(1000)  # the outputs are twice the inputs
    assert large.passed
    assert large.needed_atol == pytest.approx(1e-3 / large.scale, rel=0.1)
    small = check_parity(reference, double, {"large": ones(2, -500), "data": ones(20, 0.25)}, rtol=0)
    assert [row.passed for row in small.comparisons] == [True, False, False]
    assert not small.passed
    assert small.scale == large.scale
    assert small.needed_atol == pytest.approx(1e-3)
    halved = check_parity(lambda x: x / 2 + 1e-3, session(DOUBLE.replace("Add(x, x)", "Mul(x, half)").replace(
        "{ t", "<float[1] half = {0.5}> { t")), {"large": ones(2, 500)}, rtol=0)  # fmt: skip
    assert halved.scale == 500  # the inputs are twice the outputs


@pytest.mark.parametrize(
    ("stated", "given", "atol", "rtol"),
    [
        ({}, {}, ATOL, RTOL),
        ({"atol": 0.5, "rtol": 0.25}, {}, 0.5, 0.25),
        ({"max_abs": 1.0}, {}, ATOL, RTOL),
        ({"atol": 0.5, "rtol": 0.25}, {"atol": 0.0}, 0.0, 0.25),
        ({"atol": 0.5, "rtol": 0.25}, {"rtol": 0.0}, 0.5, 0.0),
    ],
)
def test_a_files_own_tolerance_is_used_unless_one_is_given(
    stated: dict[str, float], given: dict[str, float], atol: float, rtol: float
) -> None:
    file, inputs = session(DOUBLE, **stated), {"x": ones(2, 0.0)}
    report = check_parity(Recorded(0.4), file, inputs, atol=given.get("atol"), rtol=given.get("rtol"))
    assert (report.atol, report.rtol) == (atol, rtol)
    assert report.passed == (atol + rtol * 0.4 >= 0.4)


def test_the_default_tolerance() -> None:
    assert (ATOL, RTOL) == (1e-5, 1e-4)


@pytest.mark.parametrize("batch", ["N", "4"])
def test_several_inputs_and_outputs(batch: str) -> None:
    x, y = np.random.default_rng(0).random((2, 10, 3), np.float32)
    two = session(TWO.replace("N", batch))

    def sum_and_mean(x: Array, y: Array) -> tuple[Array, Array]:
        return x + y, np.mean(x + y, 1, keepdims=True)

    report = check_parity(sum_and_mean, two, {"random": (x, y), "scaled": (x, 100 * y)}, batch_sizes=(1, 8))
    assert report.passed
    sizes = [4] if batch == "4" else [1, 8]
    assert [(row.inputs, row.output, row.batch_size) for row in report.comparisons] == [
        (name, output, size) for name in ("random", "scaled") for size in sizes for output in ("sum", "mean")
    ]
    assert {row.examples for row in report.comparisons} == {10}
    assert report.comparisons[-1].scale == 100 * y.max()
    first = check_parity(lambda x, y: x + y, two, {"random": (x, y)}, batch_sizes=(1,))
    assert [row.output for row in first.comparisons] == ["sum"]
    wrong = check_parity(lambda x, y: (x + y, x[:, :1]), two, {"random": (x, y)}, batch_sizes=(1,))
    assert [row.passed for row in wrong.comparisons] == [True, False]
    with pytest.raises(InputError, match="has 2 outputs, the reference 3"):
        check_parity(lambda x, y: [x, y, x], two, {"random": (x, y)})


@pytest.mark.parametrize("inputs", [{}, {"none": ones(0)}, {"x": ones(1), "none": ones(0)}])
def test_nothing_is_not_compared(inputs: dict[str, Array]) -> None:
    with pytest.raises(InputError, match="needs at least one"):
        check_parity(twice, session(DOUBLE), inputs)


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"atol": float("inf")}, "atol must be 0 or more, and finite, got inf"),
        ({"rtol": -1.0}, "rtol must be 0 or more, and finite, got -1"),
        ({"rtol": float("nan")}, "rtol must be 0 or more, and finite, got nan"),
        ({"batch_sizes": []}, r"batch sizes must be at least one whole number of 1 or more, got \[\]"),
        ({"batch_sizes": [4, 0]}, r"batch sizes must be at least one whole number of 1 or more, got \[4, 0\]"),
    ],
)
def test_what_would_always_pass_is_refused(how: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        check_parity(twice, session(DOUBLE), {"ones": ones(3)}, **how)


def test_outputs_without_an_axis_of_examples_are_compared_in_one_batch() -> None:
    turned = session(DOUBLE.replace("float[N, 3] twice", "float[3, N] twice").replace(
        "twice = Add(x, x)", "both = Add(x, x) twice = Transpose <perm = [1, 0]> (both)"))  # fmt: skip
    x = np.random.default_rng(0).random((5, 3), np.float32)
    assert check_parity(lambda x: 2 * x.T, turned, {"x": x}, batch_sizes=(5,)).passed
    assert check_parity(lambda x: 2 * x.T, turned, {"x": x[:2]}, batch_sizes=(4,)).passed
    with pytest.raises(InputError, match=r"the output 'twice' of shape \(3, 4\), not one row for each of 4 examples"):
        check_parity(lambda x: 2 * x.T, turned, {"x": x}, batch_sizes=(4,))


def test_classes_decide_for_lower_precision() -> None:
    x = np.eye(3, dtype=np.float32)[[0, 1, 2, 1]]
    report = check_parity(lambda x: x[:, ::-1], session(DOUBLE), {"x": x}, max_changed=0.5, batch_sizes=(4,))
    assert (report.passed, report.max_changed, report.comparisons[0].agreement) == (True, 0.5, 0.5)
    assert not check_parity(lambda x: x[:, ::-1], session(DOUBLE), {"x": x}, max_changed=0.49).passed


def test_a_report_is_plain_for_json() -> None:
    x = np.random.default_rng(0).random((30, 3), np.float32)
    report = check_parity(lambda x: 2 * x[:, ::-1], session(DOUBLE), {"a": x}, arbiter=twice, batch_sizes=(8,))
    plain = json.loads(json.dumps(report.to_dict()))
    assert (plain["passed"], plain["nearer"], plain["needed_atol"]) == (False, {"model": 1}, report.needed_atol)
    (row,) = plain["comparisons"]
    assert row["changed"][0].keys() == {"example", "got", "reference"}
    assert row["arbitration"]["error"] == 0
    several = check_parity(twice, session(DOUBLE), {"a": x, "b": x}, arbiter=lambda x: x, batch_sizes=(7, 8))
    assert several.nearer == {"equal": 4}


def test_synthetic_inputs_are_seeded_and_extreme() -> None:
    inputs = synthetic_inputs((3, 2))
    assert {name: len(x) for name, x in inputs.items()} == {
        "random": 128, "zeros": 128, "large": 2, "large mixed": 128, "denormal": 128,
    }  # fmt: skip
    assert all(x.dtype == np.float32 and x.shape[1:] == (3, 2) for x in inputs.values())
    assert all(np.array_equal(x, synthetic_inputs((3, 2), seed=0)[name]) for name, x in inputs.items())
    assert not np.array_equal(inputs["random"], synthetic_inputs((3, 2), seed=1)["random"])
    assert -1 <= inputs["random"].min() < -0.9
    assert 0.9 < inputs["random"].max() <= 1
    assert not inputs["zeros"].any()
    np.testing.assert_array_equal(inputs["large"][:, 0, 0], [1e4, -1e4])
    signs = np.sign(inputs["random"])
    np.testing.assert_array_equal(inputs["large mixed"], signs * np.float32(1e4))
    np.testing.assert_array_equal(inputs["denormal"], signs * np.float32(1e-40))
    assert len(synthetic_inputs((3,), examples=5)["random"]) == 5


def test_synthetic_inputs_of_whole_numbers_go_up_to_the_maximum() -> None:
    inputs = synthetic_inputs((4, 4), maximum=16)
    assert all(x.dtype == np.uint8 and x.shape == (128, 4, 4) for x in inputs.values())
    assert set(inputs["random"].flat) == set(range(17))
    assert not inputs["zeros"].any()
    assert (inputs["largest"] == 16).all()
