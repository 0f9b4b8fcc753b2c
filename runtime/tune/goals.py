"""What "fast" can mean: a statistic of the times of runs, and its ratio between two candidates."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from smx.timing.interleave import Timings
from smx.timing.intervals import Statistic, bootstrap, median

Array = NDArray[np.float64]


def _p99(times: Array) -> Array:
    quantiles: Array = np.quantile(times, 0.99, axis=-1)
    return quantiles


def _mean(times: Array) -> Array:
    means: Array = times.mean(-1)
    return means


GOALS: dict[str, Statistic] = {"p50": median, "p99": _p99, "throughput": _mean}
"""The statistic of the times of single runs that each goal makes small."""


def ratio(goal: str, timings: Timings, name: str, baseline: str, batch_size: int) -> tuple[float, float, float]:
    """Return the ratio of two candidates' statistics in the same rounds, and the ends of its confidence interval.

    For p50 it is the median over the rounds of the ratio of both medians, as in a bench. One round has too few runs for
    a 99 % quantile or a mean: there it is the ratio of the statistics of all runs. The bootstrap draws a round with the
    runs of both candidates.
    """
    if goal == "p50":
        ratios = timings.ratios(name, baseline, batch_size)
        return (float(np.median(ratios)), *bootstrap(ratios))
    ours, theirs = (np.array(timings.bursts[key, batch_size]) for key in (name, baseline))
    length, both = ours.shape[-1], np.concatenate([ours, theirs], -1)

    def quotient(samples: Array) -> Array:
        runs = samples.reshape(len(samples), -1, both.shape[-1])
        parts = (part.reshape(len(samples), -1) for part in (runs[..., :length], runs[..., length:]))
        numerator, denominator = map(GOALS[goal], parts)
        return numerator / denominator

    return (float(quotient(both.reshape(1, -1))[0]), *bootstrap(both, quotient))


def figure(goal: str, runs: Array, batch_size: int) -> float:
    """Return a goal's figure for times of runs in microseconds (N,): microseconds a run, or examples a second."""
    value = float(GOALS[goal](runs))
    return 1e6 * batch_size / value if goal == "throughput" else value
