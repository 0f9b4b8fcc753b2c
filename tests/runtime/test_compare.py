from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from smx.runtime.parity.compare import Arbitration, Array, Disagreement, compare, scale_of

NUMBERS = st.floats(-1e3, 1e3)


@st.composite
def pairs(draw: st.DrawFn) -> tuple[Array, Array]:
    """Two float64 arrays of one shape, often near each other."""
    shape = draw(arrays.array_shapes(min_dims=1, max_dims=3, max_side=6))
    b = draw(arrays.arrays(np.float64, shape, elements=NUMBERS))
    error = draw(arrays.arrays(np.float64, shape, elements=NUMBERS))
    return b + error * draw(st.sampled_from([0.0, 1e-9, 1e-7, 1.0])), b


@given(
    pair=pairs(),
    atol=st.sampled_from([0.0, 1e-6, 1e-5, 1.0]),
    rtol=st.sampled_from([0.0, 1e-5, 1e-4, 1.0]),
    scale=st.sampled_from([1.0, 100.0]),
)
def test_the_tolerance_is_numpys(pair: tuple[Array, Array], atol: float, rtol: float, scale: float) -> None:
    a, b = pair
    found = compare(a, b, atol=atol, rtol=rtol, scale=scale)
    assert found.passed == np.allclose(a, b, atol=atol * scale, rtol=rtol)
    assert found.max_abs == np.abs(a - b).max()


@given(pair=pairs(), rtol=st.sampled_from([0.0, 1e-4, 1e-2]), scale=st.floats(1, 1e4))
def test_the_needed_tolerance_is_the_smallest_that_passes(pair: tuple[Array, Array], rtol: float, scale: float) -> None:
    a, b = pair
    needed = compare(a, b, atol=0, rtol=rtol, scale=scale).needed_atol
    step = 1e-12 * max(1.0, float(np.abs(a - b).max()))
    assert compare(a, b, atol=needed + step, rtol=rtol, scale=scale).passed
    assert needed <= step or not compare(a, b, atol=needed - step, rtol=rtol, scale=scale).passed


def test_all_that_a_comparison_says() -> None:
    b = np.array([[300.0, 400.0], [0.0, 0.0], [1.0, 2.0]])
    a = np.array([[300.0, 402.0], [0.5, 0.0], [2.0, 1.0]])
    found = compare(a, b, atol=0.01, rtol=0.001, scale=4, inputs="x", output="y", batch_size=2, arbiter=b + 3)
    rms = math.sqrt((3**2 + 1**2 + 2.5**2 + 3**2 + 2**2 + 4**2) / 6)
    arbitration = {"error": 4, "error_rms": pytest.approx(rms), "reference_error": 3, "reference_error_rms": 3}
    expected = {
        "inputs": "x", "output": "y", "batch_size": 2, "examples": 3, "max_abs": 2, "scale": 4,
        "needed_atol": pytest.approx((2 - 0.4) / 4), "agreement": 1 - 1 / 3,
        "changed": (Disagreement(example=2, got=0, reference=1),), "arbitration": arbitration, "passed": False,
    }  # fmt: skip
    assert {**vars(found), "arbitration": vars(found.arbitration)} == expected
    assert (found.changed_examples, found.arbitration and found.arbitration.nearer) == (1, "model")
    plain = compare(a, b, atol=0.01, rtol=0.001)
    assert (plain.inputs, plain.output, plain.batch_size, plain.scale, plain.arbitration) == ("", "", 0, 1, None)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_never_pass(bad: float) -> None:
    b = np.ones((2, 3))
    a = b.copy()
    a[1, 2] = bad
    for got, expected in ((a, b), (b, a), (a, a)):
        for atol, max_changed in ((1e9, None), (np.inf, None), (1, 1.0)):
            found = compare(got, expected, atol=atol, rtol=1, max_changed=max_changed)
            assert not found.passed
            assert (found.max_abs, found.needed_atol) == (np.inf, np.inf)
    nothing = compare(np.full((2, 3), bad), b, atol=1, rtol=1, arbiter=b)
    assert nothing.arbitration == Arbitration(error=np.inf, error_rms=np.inf, reference_error=0, reference_error_rms=0)


def test_another_shape_never_passes() -> None:
    b = np.ones((2, 4))
    for shape in ((2, 3), (4, 2), (2, 4, 1), (3, 4)):
        found = compare(np.ones(shape), b, atol=9, rtol=9, arbiter=b)
        assert (found.passed, found.max_abs) == (False, np.inf)
        assert found.arbitration is not None
        assert found.arbitration.nearer == "reference"


@pytest.mark.parametrize("shape", [(0, 3), (3, 0)])
def test_no_examples_and_no_values_pass(shape: tuple[int, ...]) -> None:
    found = compare(np.ones(shape), np.ones(shape), atol=0, rtol=0, arbiter=np.ones(shape))
    assert (found.passed, found.max_abs, found.needed_atol, found.agreement) == (True, 0, 0, 1)
    assert found.arbitration == Arbitration(error=0, error_rms=0, reference_error=0, reference_error_rms=0)


def test_examples_of_another_class_are_listed() -> None:
    b = np.eye(4)[[0, 1, 2, 3] * 10]
    a = b.copy()
    a[[3, 17]] = np.eye(4)[2]
    found = compare(a, b, atol=2, rtol=0)
    assert [(one.example, one.got, one.reference) for one in found.changed] == [(3, 2, 3), (17, 2, 1)]
    assert (found.changed_examples, found.agreement) == (2, 0.95)
    assert compare(a, b, atol=0, rtol=0, max_changed=0.05).passed
    assert not compare(a, b, atol=9, rtol=0, max_changed=0.04).passed
    assert not compare(a, b, atol=9, rtol=0, max_changed=0.0).passed
    every = compare(b[:, ::-1], b, atol=0, rtol=0)
    assert (every.changed_examples, len(every.changed), every.agreement) == (40, 20, 0)


@pytest.mark.parametrize("shape", [(4,), (4, 1), (4, 3, 2)])
def test_outputs_that_are_no_classes_have_none(shape: tuple[int, ...]) -> None:
    b = np.arange(math.prod(shape), dtype=np.float64).reshape(shape)
    found = compare(-b, b, atol=0, rtol=0, max_changed=1.0)
    assert (found.agreement, found.changed_examples, found.changed) == (1, 0, ())
    assert not found.passed  # here the tolerance decides
    assert compare(-b, b, atol=100, rtol=0, max_changed=0.0).passed


@given(pair=pairs(), error=NUMBERS, size=st.sampled_from([2.0**-500, 1.0, 2.0**500]))
def test_the_arbiter_says_which_is_nearer(pair: tuple[Array, Array], error: float, size: float) -> None:
    a, b = pair
    exact = b + error
    found = compare(a * size, b * size, atol=0, rtol=0, arbiter=exact * size).arbitration
    assert found is not None
    own, others = (math.sqrt(math.fsum(((side - exact) ** 2).flat) / a.size) for side in (a, b))
    sides = [np.abs(a - exact).max(), own, np.abs(b - exact).max(), others]
    assert list(vars(found).values()) == pytest.approx([side * size for side in sides], rel=1e-9, abs=1e-90 * size)
    if abs(own - others) > 1e-9 * (own + others):
        assert found.nearer == ("model" if own < others else "reference")
    assert replace(found, error_rms=found.reference_error_rms).nearer == "equal"


@pytest.mark.parametrize(
    ("inputs", "expected", "scale"),
    [
        ([], [], 1),
        ([[np.nan]], [0.5], 1),
        ([[0.5, -0.9]], [0.1, 0.2], 1),
        ([[2.0, -3.0], [1.0]], [0.5], 3),
        ([[0.5]], [3.0, 4.0], math.sqrt(12.5)),
        ([[3.0]], [3.0, 4.0], math.sqrt(12.5)),
        ([[4.0]], [3.0, 4.0], 4),
        ([[np.inf, -2.0, np.nan]], [np.nan, np.inf, -1.0], 2),
        ([[0.0]], [1e200, -1e200], 1e200),
        ([[0.0]], [np.inf], 1),
    ],
)
def test_the_scale_is_the_size_of_the_values(inputs: list[list[float]], expected: list[float], scale: float) -> None:
    assert scale_of([np.array(x) for x in inputs], np.array(expected)) == pytest.approx(scale, rel=1e-12)


def test_whole_inputs_do_not_count_for_the_scale_but_whole_outputs_do() -> None:
    assert scale_of([np.array([255], np.uint8), np.array([True])], np.array([0.5])) == 1
    assert scale_of([np.array([7], np.uint8), np.array([2], np.float16)], np.array([3], np.int64)) == 3
