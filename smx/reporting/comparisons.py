"""Is one method better than another: differences of pairs, intervals, tests, and their correction."""

from __future__ import annotations

import pandas as pd

from smx.reporting.study import SMARTMIXED, Section


def compare(section: Section, method: str, other: str) -> dict[str, object] | None:
    """Compare the test accuracies of two methods over the pairs of cells with the same architecture and seed.

    Returns:
        None if there is no pair; else `method`, `other`, `difference` (mean of the pairs, in points of accuracy,
        `method` minus `other`), `low`, `high` (95 %, of a bootstrap that draws architectures and within each its pairs;
        NaN for one pair), `pairs`, `architectures`, `wins` (architectures in which `method` is better on average),
        `test` (what p comes from, in words), `p` (two-sided; NaN where nothing can be tested).
    """
    raise NotImplementedError


def comparisons(section: Section, reference: str = SMARTMIXED) -> pd.DataFrame:
    """Return `compare` of a method with each other one, a row each; empty if there is no such method."""
    raise NotImplementedError


def within_architectures(section: Section, reference: str = SMARTMIXED) -> pd.DataFrame:
    """Compare a method with each other one in each architecture by a paired t test over the seeds, where there are two.

    Columns: architecture, method, other, difference (points), low, high (95 %, of the t test), pairs, p, p_corrected
    (Holm, over this table).
    """
    raise NotImplementedError


def friedman(section: Section) -> dict[str, object]:
    """Test whether the contenders' ranks differ at all (Friedman): statistic, p, n (architectures), methods.

    p is NaN for fewer than three methods or architectures.
    """
    raise NotImplementedError


def holm(p: pd.Series) -> pd.Series:
    """Correct the p values of a family of tests by Holm's method; NaN is no test, and stays."""
    raise NotImplementedError
