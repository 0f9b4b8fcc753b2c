"""Intervals and tests for values that come in groups: cells in architectures, seeds within."""

from __future__ import annotations

import math
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
"""Of values that Wilcoxon's test needs to find anything at 0.05: five that all agree have p = 0.0625."""
TINY = 1e-10
"""A spread that is rounding alone."""

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
    """Return the 95 % interval of `mean`, by a bootstrap that draws groups, and within each drawn group its values.

    A bootstrap of fewer than `FEWEST` values is much too narrow: their interval is Student's.
    """
    values = np.concatenate([*groups, np.zeros(0)])
    if len(values) < 2:
        return NO_INTERVAL
    if len(values) < FEWEST:
        (low, high), shift = t_test(values)[0], mean(groups) - float(values.mean())
        return Interval(low + shift, high + shift)
    sizes = np.array([len(each) for each in groups])
    table = np.zeros((len(groups), sizes.max()))
    for row, each in zip(table, groups, strict=True):
        row[: len(each)] = each
    drawn, positions, weights = draw(sizes, draws)
    means = (table[drawn[:, :, None], positions] * weights).sum(2).mean(1)
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


def t_test(values: Floats) -> tuple[Interval, float]:
    """Return the 95 % interval of the mean of values (n,), and p of the mean 0, by Student's t.

    Equal values have no spread to judge by: their interval is NaN, and so is p, but for values of 0, where it is 1.
    """
    error = float(values.std(ddof=1)) / math.sqrt(len(values))
    centre = float(values.mean())
    if error < TINY:
        return NO_INTERVAL, 1.0 if abs(centre) < TINY else float("nan")
    reach = error * float(stats.t.ppf((1 + LEVEL) / 2, len(values) - 1))
    return Interval(centre - reach, centre + reach), float(2 * stats.t.sf(abs(centre / error), len(values) - 1))


def against_zero(groups: list[Floats]) -> tuple[float, str, int]:
    """Test whether values lie about 0; return p (two-sided), the test in words, and how many values it counts.

    What is counted are the groups' means, which say most about further architectures; with fewer than `FEWEST` of these
    it is every value, which then speaks for these architectures alone. The test is Wilcoxon's by signed ranks or, for
    fewer than `FEWEST` values, Student's t. p is NaN where there is one value.
    """
    values, unit = np.array([each.mean() for each in groups]), "architectures"
    if len(groups) < FEWEST and max(map(len, groups), default=0) > 1:
        values, unit = np.concatenate(groups), "pairs of architecture and seed" if len(groups) > 1 else "seeds"
    values = values.round(10)  # means of equal values differ in their last digits
    if len(values) < 2:
        return float("nan"), "none", len(values)
    if len(values) < FEWEST:
        return t_test(values)[1], f"t test, {len(values)} {unit}", len(values)
    p = float(stats.wilcoxon(values).pvalue) if values.any() else 1.0
    return p, f"Wilcoxon, {len(values)} {unit}", len(values)


def summary(
    groups: list[Floats], name: str, zero: float = 0.0, bounds: tuple[float, float] = (-math.inf, math.inf)
) -> dict[str, Any]:
    """Describe values: their `mean` under a name, `low`, `high` (its 95 % interval), `test`, `p` and `values` (how many
    it counts) of the test against `zero`, and `architectures` (how many groups). `bounds` are those of the values.
    """
    low, high = np.clip(interval(groups), *bounds).tolist()
    p, test, values = against_zero([each - zero for each in groups])
    found = {name: mean(groups), "low": low, "high": high, "test": test, "p": p, "values": values}
    return {**found, "architectures": len(groups)}
