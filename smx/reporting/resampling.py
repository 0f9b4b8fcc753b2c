"""Intervals and tests for values that come in groups: cells in architectures, seeds within."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

DRAWS = 2000
LEVEL = 0.95
SEED = 0
"""Of every bootstrap, so that a report made again says the same."""
FEWEST = 6
"""Of pairs that Wilcoxon's test needs to find anything at 0.05: five that all agree have p = 0.0625."""

Floats = NDArray[np.float64]


class Interval(NamedTuple):
    """A 95 % interval; both NaN where one value leaves nothing to draw."""

    low: float
    high: float


NO_INTERVAL = Interval(float("nan"), float("nan"))


def by_group(values: Iterable[float], groups: Iterable[Hashable]) -> list[Floats]:
    """Return the values of each group."""
    frame = pd.DataFrame({"value": list(values), "group": list(groups)})
    return [each.to_numpy(np.float64) for _, each in frame.groupby("group", sort=False)["value"]]


def mean(groups: list[Floats]) -> float:
    """Return the mean of the groups' means, so that an architecture with more seeds counts no more than another."""
    return float(np.mean([each.mean() for each in groups])) if groups else float("nan")


def interval(groups: list[Floats], draws: int = DRAWS) -> Interval:
    """Return the 95 % interval of `mean`, by a bootstrap that draws groups, and within each drawn group its values."""
    if sum(map(len, groups)) < 2:
        return NO_INTERVAL
    sizes = np.array([len(each) for each in groups])
    values = np.zeros((len(groups), sizes.max()))
    for row, each in zip(values, groups, strict=True):
        row[: len(each)] = each
    drawn, positions, weights = draw(sizes, draws)
    means = (values[drawn[:, :, None], positions] * weights).sum(2).mean(1)
    return quantiles(means)


def draw(sizes: NDArray[np.int64], draws: int) -> tuple[NDArray[np.int64], NDArray[np.int64], Floats]:
    """Draw groups, and within each drawn group as many of its values as it has.

    Args:
        sizes: of each of G groups; S is the largest.
        draws: how often, D.

    Returns:
        The drawn groups (D, G), the positions of the values in their group (D, G, S), and their weights (D, G, S),
        whose sum over S is 1: a group with fewer than S values has weights of 0.
    """
    generator = np.random.default_rng(SEED)
    drawn = generator.integers(len(sizes), size=(draws, len(sizes)))
    size = sizes[drawn][:, :, None]
    slots = np.arange(sizes.max())
    positions = (generator.random((draws, len(sizes), len(slots))) * size).astype(np.int64)
    return drawn, positions, (slots < size) / size


def quantiles(values: Floats) -> Interval:
    """Return the bounds between which 95 % of the draws lie."""
    low, high = np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float(low), float(high))


def signed_rank(groups: list[Floats]) -> tuple[float, str, int]:
    """Test by Wilcoxon's signed ranks whether values lie about 0; return p (two-sided), its words, and its size.

    What is counted are the groups' means, which say most about further architectures; with fewer than `FEWEST` of these
    it is every value, which then speaks for these architectures alone. NaN where there is one value.
    """
    values, unit = np.array([each.mean() for each in groups]), "architectures"
    if len(groups) < FEWEST and max(map(len, groups), default=0) > 1:
        values, unit = np.concatenate(groups), "pairs of architecture and seed"
    values = values.round(10)  # means of equal values differ in their last digits
    if len(values) < 2:
        return float("nan"), "none", len(values)
    p = float(stats.wilcoxon(values).pvalue) if values.any() else 1.0
    return p, f"Wilcoxon, {len(values)} {unit}", len(values)


def summary(groups: list[Floats], name: str, zero: float = 0.0) -> dict[str, Any]:
    """Describe values: their `mean` under a name, `low`, `high` (its 95 % interval), `test`, `p` and `values` (how many
    it counts) of the test against `zero`, and `architectures` (how many groups).
    """
    low, high = interval(groups)
    p, test, values = signed_rank([each - zero for each in groups])
    found = {name: mean(groups), "low": low, "high": high, "test": test, "p": p, "values": values}
    return {**found, "architectures": len(groups)}
