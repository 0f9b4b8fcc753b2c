"""The report of a bench: times of each candidate, its ratio to the baseline, and reasons to distrust the figures."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from smx.timing.interleave import Timings
from smx.timing.intervals import MIN_ROUNDS, bootstrap
from smx.timing.machine import busy

QUANTILES = (0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99)
"""Of the times of single runs, in the report."""

BIASED = 0.01
"""A control whose whole interval is further from 1 than this causes a warning."""
WIDE = 0.10
"""An interval wider than this, relative to its lower end, causes a warning."""


@dataclass(frozen=True, kw_only=True)
class Latency:
    """One candidate at one batch size; times are microseconds a run, ratios are to the baseline in the same round.

    Attributes:
        name: of the candidate.
        batch_size: examples a run.
        runs: number of timed runs.
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
    """The times of all candidates at all batch sizes.

    Attributes:
        baseline: the candidate that ratios refer to.
        blocks, rounds: number of blocks, and of rounds in all blocks together.
        level: of the confidence intervals.
        machine: see `smx.timing.machine.machine`; `load` is from before the measurement, `load_after` from after it.
        results: of the candidates.
        control: of the baseline a second time, as if it were another candidate.
        warnings: reasons to distrust the figures.
        timings: every measured time; not part of `to_dict`.
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

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        values = asdict(replace(self, timings=Timings()))
        del values["timings"]
        return values


def rows(timings: Timings, names: Iterable[str], baseline: str, batch_sizes: Iterable[int]) -> tuple[Latency, ...]:
    """Return a row for each candidate at each batch size, in this order of the batch sizes."""
    names = tuple(names)
    return tuple(_row(timings, name, baseline, size) for size in batch_sizes for name in names)


def _row(timings: Timings, name: str, baseline: str, batch_size: int) -> Latency:
    runs = timings.runs(name, batch_size)
    ratios = timings.ratios(name, baseline, batch_size)
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


def warnings(report: TimingReport) -> Iterator[str]:
    """Yield the reasons to distrust a report's figures, one sentence each."""
    if report.rounds < MIN_ROUNDS:
        yield f"{report.rounds} rounds are too few for intervals to rely on; expected at least {MIN_ROUNDS}"
    if sentence := busy(report.machine):
        yield sentence
    for row in report.control:
        if row.ratio_low > 1 + BIASED or row.ratio_high < 1 - BIASED:
            yield (
                f"batch {row.batch_size}: {report.baseline} against itself measured {row.ratio:.3f}"
                f" ({row.ratio_low:.3f} to {row.ratio_high:.3f}); differences of that size mean nothing here"
            )
    for size in report.batch_sizes:
        at_size = (row for row in report.results if row.batch_size == size)
        widest = max(at_size, key=lambda row: row.ratio_high / row.ratio_low)
        if widest.ratio_high > (1 + WIDE) * widest.ratio_low:
            yield (
                f"batch {size}: too noisy to conclude, the interval of {widest.name} goes from {widest.ratio_low:.2f}"
                f" to {widest.ratio_high:.2f}; measure again on a quiet machine, or with more rounds"
            )
    timings = report.timings
    unsteady = [key for key, blocks in timings.unsteady.items() if 2 * blocks > len(timings.bursts[key])]
    if unsteady:
        names = ", ".join(f"{name} at batch {size}" for name, size in unsteady)
        yield f"still becoming faster when their warm-up was ended: {names}"
