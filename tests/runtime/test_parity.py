from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from smx.runtime import parity
from smx.runtime.parity import Array, check_parity, compare, probes
from smx.runtime.session import Session


class Double(Session):
    """A session without a model: doubles its input, and remembers the batch sizes."""

    def __init__(self) -> None:  # loads no model
        self.batches: list[int] = []
        self.inputs = []

    def run(self, *inputs: Array) -> Array:
        self.batches.append(len(inputs[0]))
        return 2 * inputs[0]


@given(
    error=st.floats(-4e-5, 4e-5),
    size=st.floats(0, 0.9),
    atol=st.sampled_from([0.0, 1e-6, 1e-5]),
    rtol=st.sampled_from([0.0, 1e-5, 1e-4]),
)
def test_at_unit_size_the_tolerance_is_numpys(error: float, size: float, atol: float, rtol: float) -> None:
    b = np.array([[0.25, size]])
    a = b + np.array([[0, error]])
    assert compare(a, b, atol=atol, rtol=rtol).passed == np.allclose(a, b, atol=atol, rtol=rtol)


def test_figures_of_a_comparison() -> None:
    b = np.array([[300.0, 400.0], [0.0, 0.0]])
    a = np.array([[300.0, 401.0], [0.5, 0.0]])
    found = compare(a, b, atol=1e-5, rtol=0, inputs="x", batch_size=2)
    assert found.max_abs == 1
    assert found.max_rel == pytest.approx(1 / 400)
    assert found.agreement == 1
    assert not found.passed
    assert compare(a, b, atol=0.01, rtol=0, scale=100).passed
    assert not compare(a, b, atol=0.01, rtol=0, scale=99).passed
    assert compare(a[:, ::-1], b, atol=1, rtol=0).agreement == 0.0


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_never_pass(bad: float) -> None:
    b = np.ones((2, 3))
    a = b.copy()
    a[1, 2] = bad
    assert not compare(a, b, atol=1e9, rtol=1e9).passed
    assert compare(a, b, atol=1, rtol=1).max_abs == np.inf
    assert not compare(b, a, atol=1e9, rtol=1e9).passed


def test_another_shape_never_passes() -> None:
    assert not compare(np.ones((2, 3)), np.ones((2, 4)), atol=9, rtol=9).passed


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
    assert report.scale == 1
    assert [(row.inputs, row.batch_size, row.examples) for row in report.comparisons] == [
        ("data", 8, 20), ("data", 16, 20), ("few", 8, 1),
    ]  # fmt: skip
    large = check_parity(lambda x: 2 * x + 1e-3, session, {"large": np.full((2, 3), -500.0)}, rtol=0)
    assert large.scale == 500
    assert large.passed
    broken = check_parity(lambda x: 2 * x + 1e-3, session, {"data": np.ones((20, 3))})
    assert not broken.passed
    assert broken.to_dict()["passed"] is False


def test_probes_are_seeded_and_extreme() -> None:
    inputs = probes((3, 2))
    assert all(x.dtype == np.float32 and x.shape[1:] == (3, 2) for x in inputs.values())
    assert all(np.array_equal(x, parity.probes((3, 2))[name]) for name, x in inputs.items())
    assert np.abs(inputs["random"]).max() <= 1
    assert not inputs["zeros"].any()
    assert set(np.abs(inputs["large"]).flatten()) == {1e4}
    assert 0 < np.abs(inputs["denormal"]).max() < np.finfo(np.float32).tiny
