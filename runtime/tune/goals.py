"""What can be meant by fast: a statistic of the times of runs, and its ratio between two candidates."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from smx.errors import InputError
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
"""The statistic of the times of single runs that each goal wants small."""


def check_goal(goal: str) -> str:
    """Return the goal.

    Raises:
        InputError: there is no such goal.
    """
    if goal not in GOALS:
        raise InputError(f"unknown goal {goal!r}; known are {', '.join(GOALS)}")
    return goal


def figure(goal: str, runs: Array, batch_size: int) -> float:
    """Return what the goal says of times of runs in microseconds (N,): microseconds, or examples a second."""
    value = float(GOALS[goal](runs))
    return 1e6 * batch_size / value if goal == "throughput" else value


def ratio(goal: str, timings: Timings, name: str, reference: str, batch_size: int) -> float:
    """Return the statistic of a candidate divided by that of another one, timed in the same rounds.

    For p50 this is the median over the rounds of the ratio of both medians, as in `smx.runtime.latency.measure`. A
    round has too few runs for a 99 % quantile or a fair mean: there it is the ratio of the statistics of all runs.
    """
    values, statistic = _paired(goal, timings, name, reference, batch_size)
    return float(statistic(values.reshape(1, -1))[0])


def ratio_interval(goal: str, timings: Timings, name: str, reference: str, batch_size: int) -> tuple[float, float]:
    """Return the confidence interval of `ratio`; rounds are resampled with the runs of both candidates in them."""
    return bootstrap(*_paired(goal, timings, name, reference, batch_size))


def _paired(goal: str, timings: Timings, name: str, reference: str, batch_size: int) -> tuple[Array, Statistic]:
    """Return values (blocks, rounds, *), and what makes the ratio of a sample of rounds of them."""
    if goal == "p50":
        return timings.medians(name, batch_size) / timings.medians(reference, batch_size), median
    statistic = GOALS[goal]
    ours, theirs = (np.array(timings.bursts[key, batch_size]) for key in (name, reference))
    length, both = ours.shape[-1], np.concatenate([ours, theirs], -1)

    def quotient(samples: Array) -> Array:
        rounds = samples.reshape(len(samples), -1, both.shape[-1])
        parts = (part.reshape(len(samples), -1) for part in (rounds[..., :length], rounds[..., length:]))
        own, other = map(statistic, parts)
        return own / other

    return both, quotient
