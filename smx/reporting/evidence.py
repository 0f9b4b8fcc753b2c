"""Every test that the verdicts rest on, so that they can be corrected together."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

import pandas as pd
from scipy import stats

from smx.reporting.choices import EARLY, LATE, avoided, preferences, trends
from smx.reporting.comparisons import BEST_FIXED, compare, friedman, holm
from smx.reporting.connections import out_of
from smx.reporting.ranks import PLACES, best_fixed, ranks, table_1
from smx.reporting.resampling import LEVEL, by_group, summary
from smx.reporting.study import Section, Study
from smx.study.methods import RULES
from smx.training.config import SMARTMIXED

SIGNIFICANT = 0.05
RELU, TWO_PHASES, SHUFFLED, RANDOM, MAJORITY = "relu", "relu_two_phases", "shuffled", "random", "majority"
FIRST_THREE, RANKING, FRIEDMAN = "smartmixed among the first three", "rank correlation with the paper", "Friedman"
SIGMOID, ELU = "share of sigmoid", "weights out of elu - out of others"
POINTS, SHARE, SHARES = "points", "share", "difference of shares"


class Estimated(NamedTuple):
    """One test of one section.

    Attributes:
        section: the section's title.
        what: what was estimated, as `smartmixed - relu`.
        unit: of the estimate and its 95 % interval.
        estimate, low, high: NaN where it has none.
        test: its name, and how many of what it counts.
        values: how many values the test counts.
        n: the number of architectures.
        p: two-sided; NaN where nothing can be tested.
    """

    section: str
    what: str
    unit: str
    estimate: float
    low: float
    high: float
    test: str
    values: int
    n: int
    p: float

    @classmethod
    def of(cls, section: Section, what: str, unit: str, found: Mapping[str, Any], name: str) -> Estimated:
        """Take what `resampling.summary` returned, with its estimate under a name."""
        values = (found[key] for key in (name, "low", "high", "test", "values", "architectures", "p"))
        return cls(section.title, what, unit, *values)


@lru_cache(maxsize=1)
def evidence(study: Study) -> pd.DataFrame:
    """Return every test that the verdicts rest on, all sections together; do not change it, since it is kept.

    Columns: those of `Estimated`, p_corrected (Holm, over this table) and survives (p_corrected < 0.05).
    """
    found = [row for section in study.sections for row in _of_section(section)]
    table = pd.DataFrame(found, columns=Estimated._fields)
    table["p_corrected"] = holm(table["p"].astype(float))
    table["survives"] = table["p_corrected"] < SIGNIFICANT
    return table


def minus(method: str, other: str) -> str:
    """Return what the test of a difference is called."""
    return f"{method} - {other}"


def name_of_best(section: Section) -> str:
    """Return what the best fixed activation is called: by its name if it is the same in all architectures."""
    chosen = {*best_fixed(section).values()}
    return chosen.pop() if len(chosen) == 1 else BEST_FIXED


def of_rule(rule: str, control: str) -> str:
    """Return the name of another rule's control, see `smx.study.methods.CONTROLS`."""
    return f"{rule}_{control}"


def _of_section(section: Section) -> Iterator[Estimated]:
    yield from _of_accuracies(section)
    yield from _of_ranks(section)
    yield from _of_choices(section)


def _of_accuracies(section: Section) -> Iterator[Estimated]:
    best = name_of_best(section)
    pairs = [(SMARTMIXED, other) for other in section.methods if other != SMARTMIXED]
    for rule in RULES:
        pairs += [(rule, best), (rule, of_rule(rule, SHUFFLED)), (rule, of_rule(rule, RANDOM))]
    for method, other in dict.fromkeys([*pairs, (SMARTMIXED, best), (SHUFFLED, RANDOM), (TWO_PHASES, RELU)]):
        if found := compare(section, method, other):
            yield Estimated.of(section, minus(method, other), POINTS, found, "difference")


def _of_ranks(section: Section) -> Iterator[Estimated]:
    table = ranks(section)
    n, methods = table.shape
    tested = friedman(section)
    if not math.isnan(tested["p"]):
        found = (tested["statistic"], math.nan, math.nan, f"Friedman, {n} architectures", n, n, tested["p"])
        yield Estimated(section.title, FRIEDMAN, "statistic", *found)
    known = table_1(section)[["architecture", "correlation"]].dropna()
    if len(known):
        correlations = summary(by_group(known["correlation"], known["architecture"]), "correlation", bounds=(-1, 1))
        yield Estimated.of(section, RANKING, "correlation", correlations, "correlation")
    if SMARTMIXED in table and methods > len(PLACES) and n:
        first = int((table[SMARTMIXED] <= len(PLACES)).sum())
        binomial = stats.binomtest(first, n, len(PLACES) / methods)
        low, high = binomial.proportion_ci(LEVEL, method="wilson")
        found = (first / n, float(low), float(high), f"binomial, {n} architectures", n, n, float(binomial.pvalue))
        yield Estimated(section.title, FIRST_THREE, "share of architectures", *found)


def _of_choices(section: Section) -> Iterator[Estimated]:
    for row in preferences(section).to_dict("records"):
        yield Estimated.of(section, in_layer(str(row["layer"])), SHARES, row, "difference")
    for row in trends(section).to_dict("records"):
        change = {**row, "low": row["change_low"], "high": row["change_high"]}
        yield Estimated.of(section, with_depth(str(row["activations"])), SHARES, change, "change")
    if share := avoided(section):
        yield Estimated.of(section, SIGMOID, SHARE, share, "share")
    if weight := out_of(section):
        yield Estimated.of(section, ELU, "weight", weight, "difference")


def in_layer(layer: str) -> str:
    """Return what the test of the shares in the first or the last layer is called."""
    return f"{' + '.join(EARLY)} - {' - '.join(LATE)} in the {layer} layer"


def with_depth(activations: str) -> str:
    """Return what the test of a change of shares with depth is called."""
    return f"{activations}, last - first layer"
