from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy.spatial import distance

from smx.runtime.parity.compare import LISTED, Array, compare, ulp_distance

NUMBERS = st.floats(-1e3, 1e3)
SHAPES = arrays.array_shapes(min_dims=1, max_dims=3, max_side=6)


@st.composite
def pairs(draw: st.DrawFn, shapes: st.SearchStrategy[tuple[int, ...]] = SHAPES) -> tuple[Array, Array]:
    """Two float64 arrays of one shape, often near each other."""
    shape = draw(shapes)
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
    assert compare(a, b, atol=atol, rtol=rtol, scale=scale).passed == np.allclose(a, b, atol=atol * scale, rtol=rtol)


@given(pair=pairs(), rtol=st.sampled_from([0.0, 1e-4, 1e-2]), scale=st.floats(1, 1e4))
def test_the_needed_tolerance_is_the_smallest_that_passes(pair: tuple[Array, Array], rtol: float, scale: float) -> None:
    a, b = pair
    needed = compare(a, b, atol=0, rtol=rtol, scale=scale).needed_atol
    step = 1e-12 * max(1.0, float(np.abs(a - b).max()))
    assert compare(a, b, atol=needed + step, rtol=rtol, scale=scale).passed
    assert needed <= step or not compare(a, b, atol=needed - step, rtol=rtol, scale=scale).passed


@given(pair=pairs())
def test_means_and_quantiles(pair: tuple[Array, Array]) -> None:
    a, b = pair
    found = compare(a, b, atol=1e-5, rtol=0)
    difference = np.abs(a - b).flatten()
    assert found.max_abs == difference.max()
    assert found.mean_abs == pytest.approx(math.fsum(difference) / difference.size)
    for name, quantile in found.quantiles.items():
        assert quantile == pytest.approx(np.quantile(difference, float(name[1:]) / 100))
    counted = np.abs(b.flatten()) > 1e-5
    relative = difference[counted] / np.abs(b.flatten()[counted])
    assert found.max_rel == pytest.approx(max(relative, default=0))
    assert found.mean_rel == pytest.approx(math.fsum(relative) / max(relative.size, 1))


def test_figures_of_a_comparison() -> None:
    b = np.array([[300.0, 400.0], [0.0, 0.0]])
    a = np.array([[300.0, 401.0], [0.5, 0.0]])
    found = compare(a, b, atol=1e-5, rtol=0, inputs="x", output="y", batch_size=2)
    assert (found.inputs, found.output, found.batch_size, found.examples) == ("x", "y", 2, 2)
    assert found.max_abs == 1
    assert found.mean_abs == 1.5 / 4
    assert found.quantiles["p50"] == 0.25
    assert found.max_rel == pytest.approx(1 / 400)
    assert found.needed_atol == 1
    assert found.agreement == 1
    assert found.arbitration is None
    assert found.nearer is None
    assert not found.passed
    assert compare(a, b, atol=0.01, rtol=0, scale=100).passed
    assert not compare(a, b, atol=0.01, rtol=0, scale=99).passed
    assert compare(a[:, ::-1], b, atol=1, rtol=0).agreement == 0.0


@given(
    dtype=st.sampled_from([np.float16, np.float32, np.float64]),
    start=st.one_of(st.floats(-1e3, 1e3), st.floats(-1e-7, 1e-7), st.floats(-1e-44, 1e-44)),
    steps=st.integers(0, 60),
    end=st.sampled_from([-np.inf, np.inf]),
)
def test_an_ulp_is_a_step_to_the_next_number(dtype: type, start: float, steps: int, end: float) -> None:
    here: Array = np.full((1, 1), start).astype(dtype)
    there = here
    for _ in range(steps):
        there = np.nextafter(there, dtype(end))
    assert compare(there, here, atol=0, rtol=0).max_ulp == steps
    assert compare(here, there.astype(np.float64), atol=0, rtol=0).max_ulp == steps


def test_steps_are_counted_across_zero_and_over_the_whole_range() -> None:
    tiny = np.float32(1e-45)
    zeros = np.array([[-0.0, 0.0, tiny, -tiny]], np.float32)
    assert compare(zeros, np.array([[0.0, -0.0, -tiny, 0.0]]), atol=1, rtol=0).max_ulp == 2
    for dtype, bits in ((np.float16, 0x7BFF), (np.float32, 0x7F7FFFFF), (np.float64, 0x7FEFFFFFFFFFFFFF)):
        largest: Array = np.array([np.finfo(dtype).max])
        steps = ulp_distance(largest, np.negative(largest))
        assert steps is not None
        assert int(steps[0]) == 2 * bits
    assert compare(np.ones((2, 3), np.int64), np.ones((2, 3), np.int64), atol=0, rtol=0).max_ulp is None


def test_the_quantile_of_the_steps() -> None:
    b = np.ones((1, 201), np.float32)
    a = b + np.arange(201, dtype=np.float32) * np.float32(2**-23)
    found = compare(a, b, atol=1, rtol=0)
    assert found.max_ulp == 200
    assert found.p99_ulp == pytest.approx(198)


@given(pair=pairs(arrays.array_shapes(min_dims=2, max_dims=2, max_side=6)), size=st.sampled_from([1e-150, 1.0, 1e150]))
def test_the_cosine_is_scipys(pair: tuple[Array, Array], size: float) -> None:
    a, b = pair
    assume((np.linalg.norm(a, axis=1) > 1e-3).all())
    assume((np.linalg.norm(b, axis=1) > 1e-3).all())
    expected = min(1 - distance.cosine(x, y) for x, y in zip(a, b, strict=True))
    assert compare(a * size, b * size, atol=0, rtol=0).cosine == pytest.approx(expected, abs=1e-12)


def test_the_cosine_of_zeros() -> None:
    zeros, one = np.zeros((1, 3)), np.ones((1, 3))
    assert compare(zeros, zeros, atol=0, rtol=0).cosine == 1
    assert compare(zeros, one, atol=0, rtol=0).cosine == 0


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_never_pass(bad: float) -> None:
    b = np.ones((2, 3))
    a = b.copy()
    a[1, 2] = bad
    assert not compare(a, b, atol=1e9, rtol=1e9).passed
    assert not compare(a, a, atol=np.inf, rtol=1e9).passed
    assert not compare(a, b, atol=1, rtol=1, max_changed=1.0).passed
    found = compare(a, b + 0.5, atol=1, rtol=1)
    assert (found.max_abs, found.needed_atol) == (np.inf, np.inf)
    assert (found.non_finite, found.reference_non_finite) == (1, 0)
    assert (found.mean_abs, found.quantiles["p99"]) == (0.5, 0.5)
    assert found.cosine == pytest.approx(1)
    found = compare(b, a, atol=1e9, rtol=1e9)
    assert (found.passed, found.non_finite, found.reference_non_finite) == (False, 0, 1)
    nothing = compare(np.full((2, 3), bad), b, atol=1, rtol=1, arbiter=b)
    assert (nothing.non_finite, nothing.max_ulp, nothing.nearer) == (6, None, "reference")
    assert math.isnan(nothing.mean_abs)
    assert math.isnan(nothing.cosine)


def test_another_shape_never_passes() -> None:
    found = compare(np.ones((2, 3), np.float32), np.ones((2, 4)), atol=9, rtol=9, arbiter=np.ones((2, 4)))
    assert (found.passed, found.non_finite, found.nearer) == (False, 8, "reference")


def test_no_examples_and_no_values_pass() -> None:
    for shape in ((0, 3), (3, 0)):
        assert compare(np.ones(shape), np.ones(shape), atol=0, rtol=0, arbiter=np.ones(shape)).passed


def test_examples_of_another_class_are_listed() -> None:
    b = np.eye(4)[[0, 1, 2, 3] * 10]
    a = b.copy()
    a[[3, 17]] = np.eye(4)[2]
    found = compare(a, b, atol=2, rtol=0)
    assert [(one.example, one.got, one.reference) for one in found.changed] == [(3, 2, 3), (17, 2, 1)]
    assert (found.changed_examples, found.agreement) == (2, 0.95)
    assert compare(a, b, atol=0, rtol=0, max_changed=0.05).passed
    assert not compare(a, b, atol=9, rtol=0, max_changed=0.04).passed
    every = compare(b[:, ::-1], b, atol=0, rtol=0)
    assert (every.changed_examples, len(every.changed), every.agreement) == (40, LISTED, 0)


@pytest.mark.parametrize("shape", [(4,), (4, 1), (4, 3, 2)])
def test_outputs_that_are_no_classes_have_none(shape: tuple[int, ...]) -> None:
    b = np.arange(math.prod(shape), dtype=np.float64).reshape(shape)
    found = compare(-b, b, atol=0, rtol=0, max_changed=1.0)
    assert (found.agreement, found.changed_examples, found.changed) == (1, 0, ())
    assert not found.passed  # here the tolerance decides
    assert compare(-b, b, atol=100, rtol=0, max_changed=0.0).passed


@given(pair=pairs(), error=NUMBERS)
def test_the_arbiter_says_which_is_nearer(pair: tuple[Array, Array], error: float) -> None:
    a, b = pair
    exact = b + error
    found = compare(a, b, atol=0, rtol=0, arbiter=exact)
    assert found.arbitration is not None
    mine, others = (np.sqrt(np.mean((side - exact) ** 2)) for side in (a, b))
    assert found.arbitration.error == np.abs(a - exact).max()
    assert found.arbitration.reference_error == np.abs(b - exact).max()
    assert found.arbitration.error_rms == pytest.approx(mine, rel=1e-9)
    assert found.arbitration.reference_error_rms == pytest.approx(others, rel=1e-9)
    if abs(mine - others) > 1e-9 * (mine + others):
        assert found.nearer == ("model" if mine < others else "reference")
    assert compare(b, b, atol=0, rtol=0, arbiter=exact).nearer == "equal"
