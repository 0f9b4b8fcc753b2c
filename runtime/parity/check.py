"""Parity: does a model in ONNX Runtime give the same answers as a reference?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from smx.errors import InputError
from smx.runtime.parity.compare import Array, Comparison, compare
from smx.runtime.session import Session

CHUNK = 1000
"""So many examples at most a reference is called with."""


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

    @property
    def needed_atol(self) -> float:
        """The smallest absolute tolerance, at this relative one, within which all values of all comparisons are."""
        return max(comparison.needed_atol for comparison in self.comparisons)

    @property
    def nearer(self) -> dict[str, int]:
        """In how many comparisons "model", "reference" or "equal" is nearer to the arbiter; empty without one."""
        return dict(Counter(comparison.nearer for comparison in self.comparisons if comparison.nearer))

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        return {**asdict(self), "passed": self.passed, "needed_atol": self.needed_atol, "nearer": self.nearer}


def check_parity(
    reference: Callable[..., Array | Sequence[Array]],
    session: Session,
    inputs: Mapping[str, Array | tuple[Array, ...]],
    *,
    arbiter: Callable[..., Array | Sequence[Array]] | None = None,
    atol: float = 1e-5,
    rtol: float = 1e-4,
    max_changed: float | None = None,
    batch_sizes: Sequence[int] = (1, 16, 128, 1000),
    on_progress: Callable[[str, int], None] = lambda inputs, batch_size: None,
) -> ParityReport:
    """Run a model on sets of inputs, in batches of several sizes, and compare it with a reference.

    The absolute tolerance is multiplied by the `scale_of` each comparison.

    Args:
        reference: computes the right outputs of inputs (B, *), given as one argument for each input of the model;
            called with up to `CHUNK` examples at a time. It returns one array (B, *), which is compared with the first
            output, or a sequence of one for each output.
        session: the model.
        inputs: sets of examples by name: an array (B, *), or a tuple of them for a model with several inputs.
        arbiter: like `reference`, but computes more exactly: the comparisons say which of the two is nearer to it.
        atol: absolute tolerance.
        rtol: relative tolerance.
        max_changed: the share of examples that may get another class, for models of lower precision; the tolerances
            then decide nothing, where outputs are classes.
        batch_sizes: examples a run; sizes above a set's number of examples are left out, but for the smallest. A model
            made for one batch size is run with that.
        on_progress: called before each run over a set.

    Raises:
        InputError: the reference has another number of outputs, or the inputs are not the model's.
    """
    names = [output.name for output in session.outputs]
    limits: dict[str, Any] = {"atol": atol, "rtol": rtol, "max_changed": max_changed}
    comparisons = []
    for name, given in inputs.items():
        x = given if isinstance(given, tuple) else (given,)
        right = _in_chunks(reference, x)
        if len(right) not in (1, len(names)):
            raise InputError(f"{session.name} has {len(names)} outputs, the reference {len(right)}")
        exact = _in_chunks(arbiter, x) if arbiter else [None] * len(right)
        usable = [size for size in batch_sizes if size <= len(x[0])] or [min(batch_sizes)]
        for batch_size in [session.batch] if session.batch else usable:
            on_progress(name, batch_size)
            got = session.run_batches(*x, batch_size=batch_size)
            limits["batch_size"] = batch_size
            comparisons += [
                compare(a, b, **limits, scale=scale_of(x, b), arbiter=c, inputs=name, output=output)
                for output, a, b, c in zip(names, got, right, exact, strict=False)  # one array: the first output
            ]
    return ParityReport(atol=atol, rtol=rtol, comparisons=tuple(comparisons), max_changed=max_changed)


def scale_of(inputs: Sequence[Array], expected: Array) -> float:
    """Return what the absolute tolerance of a comparison is multiplied by: rounding grows with the values.

    It is the largest of 1, the largest floating |input|, and the root mean square of the expected output. Inputs that
    are whole numbers do not count: they are indices, or pixels that the model normalises itself.
    """
    sizes = [float(np.abs(x).max(initial=0)) for x in inputs if np.issubdtype(x.dtype, np.floating)]
    rms = float(np.sqrt(np.mean(np.square(expected, dtype=np.float64)))) if expected.size else 0.0
    return max(1.0, rms if np.isfinite(rms) else 0.0, *sizes)


def _in_chunks(function: Callable[..., Array | Sequence[Array]], inputs: tuple[Array, ...]) -> list[Array]:
    """Return the outputs of a function for all examples, one array (B, *) each."""
    chunks = []
    for start in range(0, max(len(inputs[0]), 1), CHUNK):
        given = function(*(x[start : start + CHUNK] for x in inputs))
        chunks.append([given] if isinstance(given, np.ndarray) else given)
    return [np.concatenate(parts) for parts in zip(*chunks, strict=True)]
