"""Two arrays of outputs for the same examples: how far are they apart, and which is nearer to a third, exacter one?"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

QUANTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p99.9": 0.999}
"""The quantiles of |a - b| that a comparison has, by their names."""
LISTED = 20
"""So many examples of another class are listed at most."""


@dataclass(frozen=True, kw_only=True)
class Disagreement:
    """An example whose class differs.

    Attributes:
        example: its index.
        got: the class the model gives it.
        reference: the class the reference gives it.
    """

    example: int
    got: int
    reference: int


@dataclass(frozen=True, kw_only=True)
class Arbitration:
    """How far the model and the reference are from an arbiter, which computes more exactly than both.

    Attributes:
        error: largest |model - arbiter|; infinite where a value is not finite, like the other three.
        error_rms: root of the mean square of the same.
        reference_error: largest |reference - arbiter|.
        reference_error_rms: root of the mean square of the same.
        nearer: whose root mean square is smaller: "model", "reference" or "equal".
    """

    error: float
    error_rms: float
    reference_error: float
    reference_error_rms: float
    nearer: str


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One output for one set of inputs at one batch size.

    Means, quantiles, ulps and the cosine are of the values that are finite on both sides, and NaN where there are none.

    Attributes:
        inputs: the set's name.
        output: the output's name.
        batch_size: examples a run.
        examples: how many were compared.
        max_abs: largest |a - b|; infinite where a value is not finite.
        mean_abs: mean of |a - b|.
        quantiles: of |a - b|, by the names of `QUANTILES`.
        max_rel: largest |a - b| / |b|, b being the reference, where |b| is above the absolute tolerance.
        mean_rel: mean of the same.
        max_ulp: largest distance in units in the last place: how many steps from one number of the output's dtype to
            the next lie between a and b; None where the output is no float16, float32 or float64.
        p99_ulp: the 99 % quantile of the same; near zero, steps are so small that the largest says little.
        cosine: smallest cosine similarity of an example's outputs; 1 where both are all zero.
        needed_atol: the smallest absolute tolerance, at this rtol and scale, within which all values are.
        non_finite: how many values are not finite.
        reference_non_finite: how many of the reference's are not.
        agreement: share of the examples whose largest output is the same one; within the tolerance only a tie can
            change that, so it does not decide whether the comparison passed. 1 for outputs that are no (B, C), C > 1.
        changed_examples: how many examples have another class.
        changed: the first `LISTED` of them.
        arbitration: which side is nearer to the arbiter; None without one.
        scale: what the absolute tolerance was multiplied by, see `compare`.
        passed: whether all values are within the tolerance, and finite.
    """

    inputs: str
    output: str
    batch_size: int
    examples: int
    max_abs: float
    mean_abs: float
    quantiles: dict[str, float]
    max_rel: float
    mean_rel: float
    max_ulp: int | None
    p99_ulp: float | None
    cosine: float
    needed_atol: float
    non_finite: int
    reference_non_finite: int
    agreement: float
    changed_examples: int
    changed: tuple[Disagreement, ...]
    arbitration: Arbitration | None
    scale: float
    passed: bool

    @property
    def nearer(self) -> str | None:
        """Which side is nearer to the arbiter: "model", "reference" or "equal"; None without an arbiter."""
        return self.arbitration.nearer if self.arbitration else None


def compare(
    got: Array,
    reference: Array,
    *,
    atol: float,
    rtol: float,
    scale: float = 1.0,
    max_changed: float | None = None,
    arbiter: Array | None = None,
    inputs: str = "",
    output: str = "",
    batch_size: int = 0,
) -> Comparison:
    """Compare two outputs of shape (B, *) for the same examples: |a - b| <= atol * scale + rtol * |b| everywhere.

    With `max_changed` it is not the differences that decide, but the share of examples that get another class, where
    outputs are classes: (B, C) with C > 1.

    With `scale` 1 that is `numpy.allclose`. The rounding of a sum grows with its terms, so whoever compares values far
    beyond unit size gives a scale in proportion. Values that are not finite never pass, nor does another shape.

    `arbiter` is the same output computed more exactly, float64 (B, *).
    """
    a, b = _rows(got), _rows(reference)
    if got.shape != reference.shape:
        got = a = np.full(b.shape, np.nan)
    finite = np.isfinite(a) & np.isfinite(b)
    difference = _distance(a, b)
    size = np.where(finite, np.abs(b), 0.0)
    counted = size > max(atol, np.finfo(np.float32).tiny)
    relative = difference[counted] / size[counted]
    has_classes = reference.ndim == 2 and reference.shape[1] > 1
    other_class = a.argmax(1) != b.argmax(1) if has_classes else np.zeros(len(b), np.bool_)
    share = float(other_class.sum()) / max(len(b), 1)
    within = difference[finite] <= atol * scale + rtol * size[finite]
    max_ulp, p99_ulp = _ulps(got.reshape(b.shape)[finite], b[finite])
    return Comparison(
        inputs=inputs,
        output=output,
        batch_size=batch_size,
        examples=len(b),
        max_abs=float(difference.max(initial=0.0)),
        mean_abs=_mean(difference[finite]),
        quantiles=_quantiles(difference[finite]),
        max_rel=float(relative.max(initial=0.0)),
        mean_rel=_mean(relative) if relative.size else 0.0,
        max_ulp=max_ulp,
        p99_ulp=p99_ulp,
        cosine=_cosine(a[finite.all(1)], b[finite.all(1)]),
        needed_atol=float(((difference - rtol * size) / scale).max(initial=0.0)),
        non_finite=int(np.count_nonzero(~np.isfinite(a))),
        reference_non_finite=int(np.count_nonzero(~np.isfinite(b))),
        agreement=1.0 - share,
        changed_examples=int(other_class.sum()),
        changed=_disagreements(a, b, np.flatnonzero(other_class)[:LISTED]),
        arbitration=None if arbiter is None else _arbitrate(a, b, _rows(arbiter)),
        scale=scale,
        passed=bool(
            finite.all() and (within.all() if max_changed is None or not has_classes else share <= max_changed)
        ),
    )


def ulp_distance(a: Array, b: Array) -> NDArray[np.uint64] | None:
    """Return how many steps from one number of a's dtype to the next lie between a and b, b rounded to that dtype.

    Both zeros are the same number. Shaped like a; None if a is no float16, float32 or float64.
    """
    if a.dtype not in (np.float16, np.float32, np.float64):
        return None
    with np.errstate(over="ignore"):
        i, j = _ordinal(a), _ordinal(b.astype(a.dtype))
    return np.where(i > j, i - j, j - i).view(np.uint64)  # beyond int64 the difference wraps, and is right as uint64


def _ordinal(x: Array) -> NDArray[np.int64]:
    """Count the numbers from zero to x: the bits of a float, taken as a whole number, are in the order of the size."""
    bits = np.ascontiguousarray(x).view(f"i{x.dtype.itemsize}").astype(np.int64)
    return np.where(bits < 0, np.int64(-(2 ** (8 * x.dtype.itemsize - 1))) - bits, bits)


def _rows(x: Array) -> Array:
    return x.reshape(len(x), math.prod(x.shape[1:])).astype(np.float64)


def _distance(a: Array, b: Array) -> Array:
    with np.errstate(invalid="ignore"):
        distance = np.abs(a - b)
    return np.where(np.isfinite(distance), distance, np.inf)


def _mean(values: Array) -> float:
    return float(values.mean()) if values.size else math.nan


def _quantiles(values: Array) -> dict[str, float]:
    if not values.size:
        return dict.fromkeys(QUANTILES, math.nan)
    found = np.quantile(values.astype(np.float64), list(QUANTILES.values()))
    return dict(zip(QUANTILES, found.tolist(), strict=True))


def _ulps(a: Array, b: Array) -> tuple[int | None, float | None]:
    distance = ulp_distance(a, b)
    return (int(distance.max()), _quantiles(distance)["p99"]) if distance is not None and a.size else (None, None)


def _cosine(a: Array, b: Array) -> float:
    if not a.size:
        return math.nan
    cosines = np.clip((_unit(a) * _unit(b)).sum(1), -1.0, 1.0)
    return float(np.where(a.any(1) | b.any(1), cosines, 1.0).min())


def _unit(rows: Array) -> Array:
    """Bring rows to length 1, by way of their largest value so that no square overflows; zeros stay zeros."""
    rows = rows / _divisor(np.abs(rows).max(1, keepdims=True))
    return rows / _divisor(np.linalg.norm(rows, axis=1, keepdims=True))


def _divisor(size: Array) -> Array:
    return np.where(size > 0, size, 1.0)


def _disagreements(a: Array, b: Array, examples: NDArray[np.intp]) -> tuple[Disagreement, ...]:
    return tuple(Disagreement(example=int(i), got=int(a[i].argmax()), reference=int(b[i].argmax())) for i in examples)


def _arbitrate(a: Array, b: Array, exact: Array) -> Arbitration:
    errors = [_distance(side, exact) for side in (a, b)]
    mine, others = (float(np.linalg.norm(error)) / math.sqrt(max(error.size, 1)) for error in errors)
    return Arbitration(
        error=float(errors[0].max(initial=0.0)),
        error_rms=mine,
        reference_error=float(errors[1].max(initial=0.0)),
        reference_error_rms=others,
        nearer="equal" if mine == others else "model" if mine < others else "reference",
    )
