from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import onnx
import pytest

from smx.errors import InputError
from smx.runtime.parity.check import check_parity
from smx.runtime.parity.compare import Array
from smx.runtime.session import Session


class Double(Session):
    """A session without a model: doubles its input, and remembers the batch sizes."""

    def __init__(self) -> None:  # loads no model
        self.name = "double"
        self.batches: list[int] = []
        self.inputs = []
        self.outputs = [SimpleNamespace(name="twice")]

    def run_all(self, *inputs: Array) -> list[Array]:
        self.batches.append(len(inputs[0]))
        return [2 * inputs[0]]


def two(batch: str) -> Session:
    """Load a model of two inputs and two outputs."""
    text = f"""
    <ir_version: 10, opset_import: ["" : 18]>
    two (float[{batch}, 3] x, float[{batch}, 3] y) => (float[{batch}, 3] sum, float[{batch}, 1] mean)
    {{
        sum = Add(x, y)
        mean = ReduceMean<keepdims=1>(sum, axes)
    }}
    """.replace("mean = ReduceMean", "axes = Constant<value_ints=[1]>() mean = ReduceMean")
    return Session(onnx.parser.parse_model(text).SerializeToString())


def sum_and_mean(x: Array, y: Array) -> tuple[Array, Array]:
    return x + y, np.mean(x + y, 1, keepdims=True)


def test_check_parity_uses_every_batch_size() -> None:
    session = Double()
    report = check_parity(
        lambda x: 2 * x,
        session,
        {"data": np.ones((20, 3)), "few": np.ones((1, 3))},
        batch_sizes=(8, 16, 1000),
    )
    assert session.batches == [8, 8, 4, 16, 4, 1]
    assert report.passed
    assert report.max_abs == 0
    assert report.scale == 2
    assert report.nearer == {}
    assert [(row.inputs, row.output, row.batch_size, row.examples) for row in report.comparisons] == [
        ("data", "twice", 8, 20), ("data", "twice", 16, 20), ("few", "twice", 8, 1),
    ]  # fmt: skip


def test_the_tolerance_grows_with_the_inputs() -> None:
    session = Double()
    large = check_parity(lambda x: 2 * x + 1e-3, session, {"large": np.full((2, 3), -500.0)}, rtol=0)
    assert large.scale == pytest.approx(999.999)
    assert large.passed
    assert large.needed_atol == pytest.approx(1e-3 / 999.999)
    broken = check_parity(lambda x: 2 * x + 1e-3, session, {"data": np.ones((20, 3))}, rtol=0)
    assert not broken.passed
    assert broken.needed_atol == pytest.approx(1e-3)


@pytest.mark.parametrize("batch", ["N", "4"])
def test_several_inputs_and_outputs(batch: str) -> None:
    random = np.random.default_rng(0)
    x, y = random.random((2, 10, 3), np.float32)
    report = check_parity(sum_and_mean, two(batch), {"random": (x, y), "scaled": (x, 100 * y)}, batch_sizes=(1, 8))
    assert report.passed
    sizes = [4] if batch == "4" else [1, 8]
    assert [(row.inputs, row.output, row.batch_size) for row in report.comparisons] == [
        (name, output, size) for name in ("random", "scaled") for size in sizes for output in ("sum", "mean")
    ]
    assert {row.examples for row in report.comparisons} == {10}
    assert report.comparisons[-1].scale == 100 * y.max()
    first = check_parity(lambda x, y: x + y, two(batch), {"random": (x, y)}, batch_sizes=(1,))
    assert [row.output for row in first.comparisons] == ["sum"]
    with pytest.raises(InputError, match="has 2 outputs, the reference 3"):
        check_parity(lambda x, y: [x, y, x], two(batch), {"random": (x, y)})


def test_inputs_must_have_as_many_examples_each() -> None:
    x = np.ones((2, 3), np.float32)
    with pytest.raises(InputError, match="needs at least one example, and as many of each input"):
        two("N").run_batches(x, x[:1], batch_size=1)
    with pytest.raises(InputError, match="needs at least one example"):
        check_parity(lambda x: 2 * x, Double(), {"none": np.ones((0, 3))})


def test_the_arbiter_sees_the_same_inputs() -> None:
    x = np.random.default_rng(0).random((3000, 3))
    report = check_parity(lambda x: 2 * x + 1e-6, Double(), {"a": x}, arbiter=lambda x: 2 * x, batch_sizes=(7, 1000))
    assert report.nearer == {"model": 2}
    report = check_parity(lambda x: 2 * x, Double(), {"a": x, "b": x}, arbiter=lambda x: 2 * x + 1, batch_sizes=(7,))
    assert report.nearer == {"equal": 2}


def test_a_report_is_plain_for_json() -> None:
    x = np.random.default_rng(0).random((30, 3))
    report = check_parity(lambda x: 2 * x[:, ::-1], Double(), {"a": x}, arbiter=lambda x: 2 * x, batch_sizes=(8,))
    plain = json.loads(json.dumps(report.to_dict()))
    assert (plain["passed"], plain["nearer"]) == (False, {"model": 1})
    assert plain["needed_atol"] == report.needed_atol
    (row,) = plain["comparisons"]
    assert row["changed"][0].keys() == {"example", "got", "reference"}
    assert row["arbitration"]["nearer"] == "model"
    assert row["quantiles"].keys() == {"p50", "p90", "p99", "p99.9"}
