"""Parity: does a model in ONNX Runtime give the same answers as a reference?"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from smx.errors import InputError
from smx.runtime.parity.compare import Array, Comparison, compare, scale_of
from smx.runtime.session import Session

ATOL, RTOL = 1e-5, 1e-4
"""The tolerance of files that do not state their own."""

CHUNK = 1000
"""At most this many examples are given to a reference at a time."""

Function = Callable[..., Array | Sequence[Array]]
"""Takes an array (B, *) for each input of the model; returns the first output (B, *), or a sequence of all outputs."""


@dataclass(frozen=True, kw_only=True)
class ParityReport:
    """All comparisons, and the rule that they had to meet.

    Attributes:
        atol, rtol: absolute and relative tolerance.
        comparisons: of each output, on each set of inputs, at each batch size.
        max_changed: the share of examples that may get another class; None where the tolerance decides.
    """

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
        """The smallest absolute tolerance, at this relative one, that all comparisons meet."""
        return max(comparison.needed_atol for comparison in self.comparisons)

    @property
    def nearer(self) -> dict[str, int]:
        """In how many comparisons "model", "reference" or "equal" is nearer to the arbiter; empty without one."""
        return dict(Counter(row.arbitration.nearer for row in self.comparisons if row.arbitration))

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        return {**asdict(self), "passed": self.passed, "needed_atol": self.needed_atol, "nearer": self.nearer}


def check_parity(
    reference: Function,
    session: Session,
    inputs: Mapping[str, Array | tuple[Array, ...]],
    *,
    arbiter: Function | None = None,
    atol: float | None = None,
    rtol: float | None = None,
    max_changed: float | None = None,
    batch_sizes: Sequence[int] = (1, 16, 128, 1000),
    on_progress: Callable[[str, int], None] = lambda inputs, batch_size: None,
) -> ParityReport:
    """Run a model on sets of inputs, in batches of several sizes, and compare it with a reference.

    The rule is |a - b| <= atol * scale + rtol * |b|, with the scale of each output on each set of inputs by `scale_of`.

    Args:
        reference: computes the right outputs; called with at most `CHUNK` examples at a time.
        session: the model.
        inputs: sets of examples by name: an array (B, *), or a tuple of them for a model with several inputs.
        arbiter: like `reference`, but computes more exactly: the comparisons say which of the two is nearer to it.
        atol, rtol: absolute and relative tolerance; None takes what the file's metadata states, or `ATOL` and `RTOL`.
        max_changed: the share of examples that may get another class, for models of lower precision; the tolerance
            then decides nothing where outputs are classes.
        batch_sizes: examples a run; sizes above a set's number of examples are left out, except for the smallest. A
            model made for one batch size is run with that.
        on_progress: called before each run over a set.

    Raises:
        InputError: the reference has another number of outputs; the inputs are not the model's, or there are none; a
            tolerance is negative or not finite; or a batch size is none.
    """
    if not inputs:
        raise InputError(f"{session.name} needs at least one set of inputs to be compared on")
    for name, tolerance in (("atol", atol), ("rtol", rtol)):
        if tolerance is not None and not 0 <= tolerance < math.inf:
            raise InputError(f"{name} must be 0 or more, and finite, got {tolerance}")
    if not batch_sizes or min(batch_sizes) < 1:
        raise InputError(f"batch sizes must be at least one whole number of 1 or more, got {list(batch_sizes)}")
    stated = session.info.tolerance if session.info else {}
    limits = {
        "atol": stated.get("atol", ATOL) if atol is None else atol,
        "rtol": stated.get("rtol", RTOL) if rtol is None else rtol,
    }
    names = [output.name for output in session.outputs]
    comparisons = []
    for name, arrays in inputs.items():
        x = arrays if isinstance(arrays, tuple) else (arrays,)
        count = len(x[0])
        if not count:
            raise InputError(f"{session.name} needs at least one example in {name!r} to be compared on")
        expected = _in_chunks(reference, x)
        if len(expected) not in (1, len(names)):
            raise InputError(f"{session.name} has {len(names)} outputs, the reference {len(expected)}")
        exact = _in_chunks(arbiter, x) if arbiter else [None] * len(expected)
        scales = [scale_of(x, b) for b in expected]
        usable = [size for size in batch_sizes if size <= count] or [min(batch_sizes)]
        for batch_size in [session.batch] if session.batch else usable:
            on_progress(name, batch_size)
            got = session.run_all(*x, batch_size=batch_size)
            # The reference may have the first output alone.
            for output, a, b, c, scale in zip(names, got, expected, exact, scales, strict=False):
                comparisons.append(
                    compare(
                        a, b, **limits, scale=scale, max_changed=max_changed, arbiter=c,
                        inputs=name, output=output, batch_size=batch_size,
                    )
                )  # fmt: skip
    return ParityReport(**limits, comparisons=tuple(comparisons), max_changed=max_changed)


def _in_chunks(function: Function, inputs: tuple[Array, ...]) -> list[Array]:
    """Return the outputs of a function for all examples, one array (B, *) each."""
    chunks = []
    for start in range(0, len(inputs[0]), CHUNK):
        outputs = function(*(x[start : start + CHUNK] for x in inputs))
        chunks.append([outputs] if isinstance(outputs, np.ndarray) else outputs)
    return [np.concatenate(parts) for parts in zip(*chunks, strict=True)]
