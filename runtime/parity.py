"""Parity: does a model in ONNX Runtime give the same answers as a reference?"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from smx.runtime.session import Session

Array = NDArray[Any]


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One set of inputs at one batch size.

    Attributes:
        inputs: the set's name.
        batch_size: examples a run.
        examples: how many were compared.
        max_abs: largest |a - b|.
        max_rel: largest |a - b| / |b|, b being the reference, where |b| is above the absolute tolerance.
        agreement: share of the examples whose largest output is the same one; within the tolerance only a tie can
            change that, so it does not decide whether the comparison passed.
        scale: what the absolute tolerance was multiplied by, see `compare`.
        passed: whether all values are within the tolerance, and finite.
    """

    inputs: str
    batch_size: int
    examples: int
    max_abs: float
    max_rel: float
    agreement: float
    scale: float
    passed: bool


@dataclass(frozen=True, kw_only=True)
class ParityReport:
    """All comparisons, with the tolerance they were held against, or the share of examples that may change class."""

    atol: float
    rtol: float
    comparisons: tuple[Comparison, ...]
    max_changed: float | None = None

    @property
    def passed(self) -> bool:
        """Whether every comparison passed."""
        return all(comparison.passed for comparison in self.comparisons)

    @property
    def max_abs(self) -> float:
        """The largest absolute difference of all comparisons."""
        return max(comparison.max_abs for comparison in self.comparisons)

    @property
    def scale(self) -> float:
        """The largest scale of all comparisons."""
        return max(comparison.scale for comparison in self.comparisons)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        return {**asdict(self), "passed": self.passed}


def compare(
    got: Array,
    reference: Array,
    *,
    atol: float,
    rtol: float,
    scale: float = 1.0,
    max_changed: float | None = None,
    inputs: str = "",
    batch_size: int = 0,
) -> Comparison:
    """Compare two outputs of shape (B, *) for the same examples: |a - b| <= atol * scale + rtol * |b| everywhere.

    With `max_changed` it is not the differences that decide, but the share of examples that get another class.

    With `scale` 1 that is `numpy.allclose`. The rounding of a sum grows with its terms, so whoever compares values far
    beyond unit size gives a scale in proportion. Values that are not finite never pass.
    """
    a, b = (array.reshape(len(array), -1).astype(np.float64) for array in (got, reference))
    if a.shape != b.shape:
        a = np.full(b.shape, np.nan)
    finite = np.isfinite(a) & np.isfinite(b)
    with np.errstate(invalid="ignore"):
        difference = np.where(finite, np.abs(a - b), np.inf)
    size = np.where(finite, np.abs(b), 0.0)
    counted = size > max(atol, np.finfo(np.float32).tiny)
    relative = difference[counted] / size[counted]
    return Comparison(
        inputs=inputs,
        batch_size=batch_size,
        examples=len(b),
        max_abs=float(difference.max(initial=0.0)),
        max_rel=float(relative.max(initial=0.0)),
        agreement=float(np.mean(a.argmax(1) == b.argmax(1))) if a.size else 1.0,
        scale=scale,
        passed=bool(
            (difference <= atol * scale + rtol * size).all()
            if max_changed is None
            else finite.all() and np.mean(a.argmax(1) != b.argmax(1)) <= max_changed
        ),
    )


def check_parity(
    reference: Callable[[Array], Array],
    session: Session,
    inputs: Mapping[str, Array],
    *,
    atol: float = 1e-5,
    rtol: float = 1e-4,
    max_changed: float | None = None,
    batch_sizes: Sequence[int] = (1, 16, 128, 1000),
    on_progress: Callable[[str, int], None] = lambda inputs, batch_size: None,
) -> ParityReport:
    """Run a model on sets of inputs, in batches of several sizes, and compare it with a reference.

    The absolute tolerance is multiplied by a set's largest |input| where that is above 1 (`scale` of `compare`).

    Args:
        reference: computes the right outputs (B, *) of inputs (B, *); called with up to 1000 examples at a time.
        session: the model.
        inputs: sets of examples (B, *) by name.
        atol: absolute tolerance.
        rtol: relative tolerance.
        max_changed: the share of examples that may get another class, for models of lower precision; the tolerances
            then decide nothing.
        batch_sizes: examples a run; sizes above a set's number of examples are left out, but for the smallest. A model
            made for one batch size is run with that.
        on_progress: called before each comparison.
    """
    comparisons = []
    for name, x in inputs.items():
        right = np.concatenate([reference(x[start : start + 1000]) for start in range(0, len(x), 1000)])
        scale = max(1.0, float(np.abs(x).max(initial=0.0)))
        usable = [size for size in batch_sizes if size <= len(x)] or [min(batch_sizes)]
        for batch_size in [session.batch] if session.batch else usable:
            on_progress(name, batch_size)
            got = session.run_many(x, batch_size)
            limits: dict[str, Any] = {"atol": atol, "rtol": rtol, "scale": scale, "max_changed": max_changed}
            comparisons.append(compare(got, right, **limits, inputs=name, batch_size=batch_size))
    return ParityReport(atol=atol, rtol=rtol, comparisons=tuple(comparisons), max_changed=max_changed)


def raw_probes(shape: Sequence[int], maximum: int, *, seed: int = 0, examples: int = 128) -> dict[str, Array]:
    """Return the like of `probes` for a model that takes uint8 from 0 to `maximum`."""
    random = np.random.default_rng(seed)
    full = (examples, *shape)
    return {
        "random": random.integers(0, maximum, full, np.uint8, endpoint=True),
        "zeros": np.zeros(full, np.uint8),
        "largest": np.full(full, maximum, np.uint8),
    }


def probes(shape: Sequence[int], *, seed: int = 0, examples: int = 128) -> dict[str, Array]:
    """Return inputs that no data set has, float32 (examples, *shape): random ones and extremes, by name."""
    random = np.random.default_rng(seed)
    full = (examples, *shape)
    uniform = random.uniform(-1.0, 1.0, full).astype(np.float32)
    signs = np.where(uniform < 0, np.float32(-1), np.float32(1))
    return {
        "random": uniform,
        "zeros": np.zeros(full, np.float32),
        "large": np.stack([np.full(shape, sign * 1e4, np.float32) for sign in (1, -1)]),
        "large mixed": signs * np.float32(1e4),
        "denormal": signs * np.float32(1e-40),
    }
