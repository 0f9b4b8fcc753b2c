"""What timings say: a row for each candidate, its ratio to the baseline, and why the figures may mislead."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, is_dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from smx.timing.interleave import Timings
from smx.timing.intervals import MIN_ROUNDS, bootstrap
from smx.timing.machine import busy

QUANTILES = (0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99)
"""Of the times of single runs, in the report."""

BIASED = 0.01
"""The baseline against itself may differ by so much before the figures are called into question."""
WIDE = 0.10
"""So wide an interval tells little."""


@dataclass(frozen=True, kw_only=True)
class Latency:
    """One candidate at one batch size; times in microseconds a run, ratios to the baseline of the same round.

    Attributes:
        name: the candidate's.
        batch_size: examples a run.
        runs: how many were timed.
        mean, p50, p90, p99: of the time of one run.
        throughput: examples a second, one run after the other.
        ratio: median over the rounds of (median of the round) / (median of the baseline in that round).
        ratio_low, ratio_high: its confidence interval, at the report's level.
        quantiles: `QUANTILES` of the time of one run.
    """

    name: str
    batch_size: int
    runs: int
    mean: float
    p50: float
    p90: float
    p99: float
    throughput: float
    ratio: float
    ratio_low: float
    ratio_high: float
    quantiles: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class TimingReport:
    """What every report of timings has, whatever was timed.

    Attributes:
        baseline: the candidate that ratios refer to.
        blocks, rounds: how many, and how many altogether.
        level: of the confidence intervals.
        machine: see `smx.timing.machine.machine`, taken before the measurement; and `load_after`.
        results: the candidates' times.
        control: the baseline a second time, as if it were another candidate.
        warnings: why the figures may mislead.
        timings: everything that was measured; not part of `to_dict`.
    """

    baseline: str
    blocks: int
    rounds: int
    level: float
    machine: dict[str, Any]
    results: tuple[Latency, ...]
    control: tuple[Latency, ...]
    warnings: tuple[str, ...]
    timings: Timings = field(repr=False, compare=False)

    @property
    def names(self) -> tuple[str, ...]:
        """The candidates."""
        return tuple(dict.fromkeys(row.name for row in self.results))

    @property
    def batch_sizes(self) -> tuple[int, ...]:
        """The batch sizes, in the order in which they were measured."""
        return tuple(dict.fromkeys(row.batch_size for row in self.results))

    def ratios(self, name: str, reference: str, batch_size: int) -> NDArray[np.float64]:
        """Return the ratio of two candidates' medians in each round, (blocks, rounds)."""
        return self.timings.medians(name, batch_size) / self.timings.medians(reference, batch_size)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        return {key: _plain(value) for key, value in vars(self).items() if key != "timings"}


def rows(timings: Timings, names: Iterable[str], baseline: str, batch_sizes: Iterable[int]) -> tuple[Latency, ...]:
    """Return a row for each candidate at each batch size, in this order of the batch sizes."""
    names = tuple(names)
    return tuple(_row(timings, name, baseline, size) for size in batch_sizes for name in names)


def _row(timings: Timings, name: str, baseline: str, batch_size: int) -> Latency:
    runs = timings.runs(name, batch_size)
    ratios = timings.medians(name, batch_size) / timings.medians(baseline, batch_size)
    low, high = bootstrap(ratios)
    p50, p90, p99 = (float(q) for q in np.quantile(runs, (0.5, 0.9, 0.99)))
    mean = float(runs.mean())
    return Latency(
        name=name,
        batch_size=batch_size,
        runs=len(runs),
        mean=mean,
        p50=p50,
        p90=p90,
        p99=p99,
        throughput=1e6 * batch_size / mean,
        ratio=float(np.median(ratios)),
        ratio_low=low,
        ratio_high=high,
        quantiles=tuple(float(q) for q in np.quantile(runs, QUANTILES)),
    )


def few(rounds: int) -> Iterator[str]:
    """Yield a warning if there are too few rounds for intervals."""
    if rounds < MIN_ROUNDS:
        yield f"{rounds} rounds are too few for intervals to rely on; expected at least {MIN_ROUNDS}"


def doubts(
    results: Sequence[Latency],
    control: Sequence[Latency],
    baseline: str,
    before: Mapping[str, Any],
    timings: Timings,
) -> Iterator[str]:
    """Yield in words what calls a measurement into question; `before` is what `machine` said before it began."""
    if found := busy(before):
        yield found
    for row in control:
        if row.ratio_low > 1 + BIASED or row.ratio_high < 1 - BIASED:
            yield (
                f"batch {row.batch_size}: {baseline} against itself measured {row.ratio:.3f}"
                f" ({row.ratio_low:.3f} to {row.ratio_high:.3f}); differences of that size mean nothing here"
            )
    for size in dict.fromkeys(row.batch_size for row in results):
        widest = max((row for row in results if row.batch_size == size), key=lambda row: row.ratio_high / row.ratio_low)
        if widest.ratio_high > (1 + WIDE) * widest.ratio_low:
            yield (
                f"batch {size}: too noisy to conclude, the interval of {widest.name} goes from {widest.ratio_low:.2f}"
                f" to {widest.ratio_high:.2f}; measure again on a quiet machine, or with more rounds"
            )
    unsteady = [key for key, blocks in timings.unsteady.items() if 2 * blocks > len(timings.bursts[key])]
    if unsteady:
        names = ", ".join(f"{name} at batch {size}" for name, size in unsteady)
        yield f"still becoming faster when their warm-up was ended: {names}"


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_plain(entry) for entry in value]
    return asdict(value) if is_dataclass(value) and not isinstance(value, type) else value
