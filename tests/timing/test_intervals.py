from __future__ import annotations

import random
import statistics
from collections.abc import Callable

import numpy as np
import pytest
import scipy.stats
from numpy.typing import NDArray

from smx.timing.intervals import LEVEL, bootstrap, median

Array = NDArray[np.float64]


def mean(values: Array) -> Array:
    result: Array = values.mean(axis=-1)
    return result


def clustered(blocks: int, rounds: int, *, block: float, round: float, seed: int = 0) -> Array:
    """Return normal values around 0 with a part that the rounds of a block share."""
    draws = np.random.default_rng(seed)
    return draws.normal(0, block, (blocks, 1)) + draws.normal(0, round, (blocks, rounds))


def two_stage(values: Array, statistic: Callable[[list[float]], float], level: float) -> tuple[float, float]:
    """The two-stage bootstrap as it is written in books: one sample after the other."""
    draws = random.Random(1)
    found = []
    for _ in range(4000):
        sample: list[float] = []
        for _ in values:
            block = draws.choice(values.tolist())
            sample += [draws.choice(block) for _ in block]
        found.append(statistic(sample))
    found.sort()
    tail = (1 - level) / 2 * (len(found) - 1)
    return found[round(tail)], found[round(len(found) - 1 - tail)]


def close(found: tuple[float, float], expected: tuple[float, float], tolerance: float = 0.06) -> None:
    """Assert that both ends agree, up to a part of the width: resampling is random."""
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance * (expected[1] - expected[0]))


@pytest.mark.parametrize("level", [0.8, 0.99])
@pytest.mark.parametrize(
    ("block", "round"), [(1.0, 0.01), (0.01, 1.0), (1.0, 2.0)], ids=["between blocks", "within blocks", "both"]
)
def test_both_stages_are_drawn(block: float, round: float, level: float) -> None:
    values = clustered(20, 4, block=block, round=round)
    close(bootstrap(values, mean, level=level), two_stage(values, statistics.fmean, level))


def test_of_the_median_at_99_percent_unless_told_otherwise() -> None:
    values = clustered(20, 10, block=1, round=1, seed=1)
    assert LEVEL == 0.99
    assert bootstrap(values) == bootstrap(values, median, level=0.99)
    close(bootstrap(values), two_stage(values, statistics.median, 0.99), 0.1)
    rows = np.random.default_rng(0).random((3, 4, 5))
    np.testing.assert_array_equal(median(rows), [[statistics.median(row) for row in part] for part in rows])


@pytest.mark.parametrize("level", [0.8, 0.99])
def test_one_block_is_the_ordinary_bootstrap(level: float) -> None:
    values = np.random.default_rng(0).exponential(size=40)
    expected = scipy.stats.bootstrap(
        (values,), np.mean, n_resamples=20000, confidence_level=level, method="percentile", rng=np.random.default_rng(1)
    ).confidence_interval
    close(bootstrap(values[None], mean, level=level), (expected.low, expected.high))


def test_what_belongs_to_a_round_is_drawn_with_it() -> None:
    values = clustered(6, 5, block=1, round=1)
    low, high = bootstrap(np.stack([values, -values], axis=-1), mean)
    assert abs(low) < 1e-12
    assert abs(high) < 1e-12
    thrice = np.repeat(values[..., None], 3, axis=-1)
    np.testing.assert_allclose(bootstrap(thrice, mean), bootstrap(values, mean), rtol=1e-12)


@pytest.mark.parametrize(("block", "round"), [(0.0, 0.02), (0.03, 0.01)])
def test_the_interval_covers_the_true_ratio(block: float, round: float) -> None:
    """Whether sessions differ (block) or single rounds do: 200 experiments with a true ratio of 1.1."""
    covered = 0
    widths = []
    for seed in range(200):
        low, high = bootstrap(1.1 * np.exp(clustered(10, 6, block=block, round=round, seed=seed)), seed=seed)
        covered += low <= 1.1 <= high
        widths.append(high - low)
    assert covered >= 190
    assert np.median(widths) < 7 * np.hypot(block, round) / np.sqrt(10)
