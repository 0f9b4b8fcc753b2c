"""Confidence intervals of measured times, by resampling."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

LEVEL = 0.99
"""Of all confidence intervals. A bench shows dozens of them, and at 95 % one in twenty would be wrong."""

RESAMPLES = 2000
"""Samples that a bootstrap draws."""

MIN_ROUNDS = 20
"""With fewer rounds, intervals are not reliable."""

Statistic = Callable[[NDArray[np.float64]], NDArray[np.float64]]
"""Computed along the last axis."""


def median(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the medians along the last axis."""
    result: NDArray[np.float64] = np.median(values, axis=-1)
    return result


def bootstrap(
    values: NDArray[np.float64], statistic: Statistic = median, *, level: float = LEVEL, seed: int = 0
) -> tuple[float, float]:
    """Return the ends of a confidence interval of a statistic of rounds that were measured in blocks.

    The rounds of a block have the same sessions, and so are not independent. Resampling therefore draws blocks first,
    then rounds within each (two-stage bootstrap, Davison and Hinkley, 1997, section 3.8).

    Args:
        values: (blocks, rounds, *); a round is drawn with all its values.
        statistic: of the flattened values of a sample.
        level: of confidence.
        seed: of the resampling.
    """
    random = np.random.default_rng(seed)
    blocks, rounds = values.shape[:2]
    drawn: list[Any] = []
    for _ in range(RESAMPLES // 100):  # in parts, to save memory
        block = random.integers(blocks, size=(100, blocks, 1))
        round = random.integers(rounds, size=(100, blocks, rounds))
        drawn.append(statistic(values[block, round].reshape(100, -1)))
    low, high = np.quantile(np.concatenate(drawn), ((1 - level) / 2, (1 + level) / 2))
    return float(low), float(high)
