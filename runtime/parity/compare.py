"""Two arrays of outputs for the same examples: how far they differ, and which is nearer to a third, more exact one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

LISTED = 20
"""At most this many examples of another class are listed."""

HALF_UNITS = 4
"""Two ways to compute a network in float16 may differ by so many of its units."""


@dataclass(frozen=True, kw_only=True)
class Disagreement:
    """An example whose class differs.

    Attributes:
        example: its index.
        got: the class that the model gives it.
        reference: the class that the reference gives it.
    """

    example: int
    got: int
    reference: int


@dataclass(frozen=True, kw_only=True)
class Arbitration:
    """How far the model and the reference are from an arbiter, which computes more exactly than both.

    Attributes:
        error: largest |model - arbiter|; infinite where a value is not finite, like the other three.
        error_rms: root mean square of model - arbiter.
        reference_error: largest |reference - arbiter|.
        reference_error_rms: root mean square of reference - arbiter.
    """

    error: float
    error_rms: float
    reference_error: float
    reference_error_rms: float

    @property
    def nearer(self) -> str:
        """The side with the smaller root mean square: "model", "reference" or "equal"."""
        if self.error_rms == self.reference_error_rms:
            return "equal"
        return "model" if self.error_rms < self.reference_error_rms else "reference"


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One output for one set of inputs at one batch size.

    Attributes:
        inputs: name of the set.
        output: name of the output.
        batch_size: examples a run.
        examples: how many were compared.
        max_abs: largest |a - b|; infinite where a value is not finite.
        scale: the factor of the absolute tolerance, see `scale_of`.
        needed_atol: the smallest absolute tolerance, at this relative tolerance and scale, that all values meet.
        agreement: share of the examples whose largest output is the same; 1 for outputs that are not (B, C) with C > 1.
        changed: the first `LISTED` examples whose class differs.
        arbitration: distances from the arbiter; None without one.
        passed: whether the outputs are finite, and within the tolerance or the limit on changed classes.
    """

    inputs: str
    output: str
    batch_size: int
    examples: int
    max_abs: float
    scale: float
    needed_atol: float
    agreement: float
    changed: tuple[Disagreement, ...]
    arbitration: Arbitration | None
    passed: bool

    @property
    def changed_examples(self) -> int:
        """How many examples have another class."""
        return round((1 - self.agreement) * self.examples)


def scale_of(inputs: Sequence[Array], expected: Array) -> float:
    """Return what the absolute tolerance of an output is multiplied by: the size of the values, and at least 1.

    The rounding error of a sum grows with its terms. The size is the larger of the root mean square of the output and
    the largest absolute value of the inputs, both of finite values. Whole numbers are not counted: they are indices, or
    pixels that the model normalises itself.

    Args:
        inputs: of the model, (B, *).
        expected: the output of the reference, (B, *).
    """
    floating = [x for x in inputs if np.issubdtype(x.dtype, np.floating)]
    sizes = [np.abs(x[np.isfinite(x)]).max(initial=0) for x in floating]
    values = expected[np.isfinite(expected)].astype(np.float64)
    return float(max(1, _rms(values), *sizes))


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

    With `scale` 1 this is the rule of `numpy.allclose`. Values that are not finite never pass, nor do texts, nor
    does another shape. Outputs in float16 may differ by some of its own units, however small the tolerance is.

    Args:
        got: outputs of the model.
        reference: outputs of the reference.
        atol, rtol: absolute and relative tolerance.
        scale: see `scale_of`.
        max_changed: where outputs are classes, (B, C) with C > 1, pass if at most this share of the examples gets
            another class, however large the differences are.
        arbiter: the same outputs computed more exactly, float64.
        inputs, output, batch_size: of the `Comparison`.
    """
    atol, rtol = (max(tolerance, HALF_UNITS * _unit(got, reference)) for tolerance in (atol, rtol))
    b = _rows(reference)
    a = _rows(got) if got.shape == reference.shape and got.dtype.kind in "biuf" else np.full(b.shape, np.nan)
    finite = np.isfinite(a) & np.isfinite(b)
    difference = _distance(a, b)
    allowed = rtol * np.where(finite, np.abs(b), 0.0)
    has_classes = reference.ndim == 2 and reference.shape[1] > 1
    other_class = np.flatnonzero(a.argmax(1) != b.argmax(1)) if has_classes else np.zeros(0, np.intp)
    share = len(other_class) / max(len(b), 1)
    within = bool((difference <= atol * scale + allowed).all())
    if has_classes and max_changed is not None:
        within = share <= max_changed
    return Comparison(
        inputs=inputs,
        output=output,
        batch_size=batch_size,
        examples=len(b),
        max_abs=float(difference.max(initial=0.0)),
        scale=scale,
        needed_atol=float(((difference - allowed) / scale).max(initial=0.0)),
        agreement=1.0 - share,
        changed=tuple(
            Disagreement(example=int(i), got=int(a[i].argmax()), reference=int(b[i].argmax()))
            for i in other_class[:LISTED]
        ),
        arbitration=None if arbiter is None else _arbitrate(a, b, _rows(arbiter)),
        passed=bool(finite.all() and within),
    )


def _unit(*arrays: Array) -> float:
    """Return the unit in the last place, near 1, of arrays in float16; 0 without such."""
    return max(float(np.finfo(x.dtype).eps) if x.dtype == np.float16 else 0.0 for x in arrays)


def _rows(x: Array) -> Array:
    return x.reshape(len(x), math.prod(x.shape[1:])).astype(np.float64)


def _distance(a: Array, b: Array) -> Array:
    with np.errstate(invalid="ignore"):
        distance = np.abs(a - b)
    return np.where(np.isfinite(distance), distance, np.inf)


def _rms(values: Array) -> float:
    """Return the root mean square; 0 for no values. Divided by the largest, so that no square overflows."""
    largest = np.abs(values).max(initial=0.0)
    if not 0 < largest < np.inf:
        return float(largest)
    return float(largest * np.sqrt(np.mean(np.square(values / largest))))


def _arbitrate(a: Array, b: Array, exact: Array) -> Arbitration:
    errors, reference_errors = _distance(a, exact), _distance(b, exact)
    return Arbitration(
        error=float(errors.max(initial=0.0)),
        error_rms=_rms(errors),
        reference_error=float(reference_errors.max(initial=0.0)),
        reference_error_rms=_rms(reference_errors),
    )
