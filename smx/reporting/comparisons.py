"""Is one method better than another: differences of pairs, intervals, tests, and their correction."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from smx.reporting.ranks import best_fixed, ranks
from smx.reporting.resampling import by_group, summary, t_test
from smx.reporting.study import Section
from smx.training.config import SMARTMIXED

BEST_FIXED = "best fixed activation"
"""A method that `compare` takes: in each architecture the baseline with the best validation accuracy."""
POINTS = 100
PAIR = ["architecture", "seed"]
COMPARED = ["method", "other", "difference", "low", "high", "pairs", "architectures", "wins", "test", "values", "p"]


def differences(section: Section, method: str, other: str) -> pd.DataFrame:
    """Return the pairs of cells of two methods with the same architecture and seed: architecture, seed, difference.

    `difference` is in points (hundredths) of test accuracy, `method` minus `other`.
    """
    one, two = _accuracies(section, method), _accuracies(section, other)
    pairs = one.merge(two, on=PAIR, suffixes=("", "_other"))
    pairs["difference"] = POINTS * (pairs["test_accuracy"] - pairs["test_accuracy_other"])
    return pairs[[*PAIR, "difference"]]


def _accuracies(section: Section, method: str) -> pd.DataFrame:
    cells = section.cells
    if method == BEST_FIXED:
        wanted = cells["architecture"].map(best_fixed(section)) == cells["method"]
    else:
        wanted = cells["method"] == method
    return cells[wanted].drop_duplicates(PAIR)[[*PAIR, "test_accuracy"]]


def compare(section: Section, method: str, other: str) -> dict[str, Any] | None:
    """Compare the test accuracies of two methods over the pairs of cells with the same architecture and seed.

    Returns:
        None if there is no pair; else `method`, `other`, `difference` (in points of accuracy, `method` minus `other`:
        the mean over architectures of the means over their pairs), `low`, `high` (95 %, of a bootstrap that draws
        architectures and within each its pairs; NaN for one pair), `pairs`, `architectures`, `wins` (architectures in
        which `method` is better on average), `test` (what p comes from, in words), `values` (how many it counts), `p`
        (two-sided; NaN where nothing can be tested).
    """
    pairs = differences(section, method, other)
    if pairs.empty:
        return None
    groups = by_group(pairs["difference"], pairs["architecture"])
    wins = sum(bool(each.mean().round(10) > 0) for each in groups)
    found = {"method": method, "other": other, **summary(groups, "difference"), "pairs": len(pairs), "wins": wins}
    return {name: found[name] for name in COMPARED}


def comparisons(section: Section, reference: str = SMARTMIXED) -> pd.DataFrame:
    """Return `compare` of a method with each other one, a row each; empty if there is no such method."""
    others = [method for method in section.methods if method != reference]
    rows = [compare(section, reference, other) for other in others]
    return pd.DataFrame([row for row in rows if row], columns=COMPARED)


def within_architectures(section: Section, reference: str = SMARTMIXED) -> pd.DataFrame:
    """Compare a method with each other one in each architecture by a paired t test over the seeds, where there are two.

    Columns: architecture, method, other, difference (points), low, high (95 %, of the t test), pairs, p, p_corrected
    (Holm, over this table).
    """
    rows = []
    for other in [method for method in section.methods if method != reference]:
        pairs = differences(section, reference, other)
        for architecture, each in pairs.groupby("architecture", sort=False):
            values = each["difference"].to_numpy(np.float64)
            if len(values) > 1:
                (low, high), p = t_test(values)
                rows.append((architecture, reference, other, values.mean(), low, high, len(values), p))
    columns = ["architecture", "method", "other", "difference", "low", "high", "pairs", "p"]
    table = pd.DataFrame(rows, columns=columns)
    table["p_corrected"] = holm(table["p"])
    return table


def friedman(section: Section) -> dict[str, Any]:
    """Test whether the contenders' ranks differ at all (Friedman): statistic, p, n (architectures), methods.

    p is NaN for fewer than three methods or architectures.
    """
    table = ranks(section)
    n, methods = table.shape
    result = {"statistic": math.nan, "p": math.nan, "n": n, "methods": methods}
    if n < 3 or methods < 3:
        return result
    if (table.nunique(axis=1) == 1).all():
        return {**result, "statistic": 0.0, "p": 1.0}
    tested = stats.friedmanchisquare(*table.to_numpy(np.float64).T)
    return {**result, "statistic": float(tested.statistic), "p": float(tested.pvalue)}


def holm(p: pd.Series) -> pd.Series:
    """Correct the p values of a family of tests by Holm's method; NaN is no test, and stays."""
    known = p.dropna().sort_values(kind="stable")
    factors = np.arange(len(known), 0, -1)
    corrected = (known * factors).cummax().clip(upper=1.0)
    return corrected.reindex(p.index).astype(float)
