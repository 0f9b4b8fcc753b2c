"""Table 1 and what follows from it: accuracies, ranks, how often each method takes each rank, MRR (eq. 12)."""

from __future__ import annotations

import numpy as np
import pandas as pd

from smx.paper import PAPER_POOL, TABLE_1
from smx.reporting.resampling import DRAWS, NO_INTERVAL, Floats, draw, quantiles
from smx.reporting.study import Section
from smx.training.config import SMARTMIXED

PAPER_DATA = "mnist"
PLACES = ("first", "second", "third")
PAPER_TABLE = {"-".join(map(str, hidden)): places for hidden, places in TABLE_1.items()}
"""The paper's table 1 by the report's names of architectures."""


def accuracy(section: Section) -> pd.DataFrame:
    """Return test accuracy by architecture and method: columns architecture, method, mean, deviation, n.

    `deviation` is that of a sample, over the seeds; NaN for one seed.
    """
    groups = section.cells.groupby(["architecture", "method"], sort=False)["test_accuracy"]
    table = groups.agg(mean="mean", deviation="std", n="count").reset_index()
    return _ordered(table, section)


def ranks(section: Section) -> pd.DataFrame:
    """Rank the contenders in each architecture by mean test accuracy: rows architectures, columns methods.

    Equal means share their mean rank. The means are over the seeds for which all contenders are done; an architecture
    that has none is left out.
    """
    rows = {name: rank(values.mean(0)) for name, values in section.complete.items()}
    return pd.DataFrame.from_dict(rows, orient="index", columns=section.contenders).rename_axis("architecture")


def rank(accuracies: Floats) -> Floats:
    """Rank the values of the last axis, the largest first; equal values share their mean rank."""
    values = accuracies.round(10)  # means of equal values differ in their last digits
    above = (values[..., None, :] > values[..., :, None]).sum(-1)
    equal = (values[..., None, :] == values[..., :, None]).sum(-1)
    ranked: Floats = above + (equal + 1) / 2
    return ranked


def paper_places(section: Section) -> dict[str, tuple[str, str, str]]:
    """Return the paper's three best methods in each of a section's architectures that it has, on its own data."""
    if set(section.cells["data"]) != {PAPER_DATA}:
        return {}
    return {name: PAPER_TABLE[name] for name in section.architectures if name in PAPER_TABLE}


def table_1(section: Section) -> pd.DataFrame:
    """Return the best three methods of each architecture beside the paper's.

    Columns: architecture, seeds, first, second, third (methods; equal ones joined by " = ", so that the next place is
    empty), paper_first, paper_second, paper_third (None for an architecture that the paper doesn't have, or other data
    than MNIST), correlation (Spearman, of the ranks of the paper's seven methods here and there, where those after the
    third share a rank; NaN where there is no paper, or one of the seven has no results).
    """
    paper = paper_places(section)
    rows = []
    for name, each in ranks(section).iterrows():
        lowest = each.rank(method="min")
        places = {
            place: " = ".join(lowest.index[lowest == number]) or None for number, place in enumerate(PLACES, start=1)
        }
        theirs = paper.get(str(name))
        rows.append(
            {
                "architecture": name,
                "seeds": len(section.complete[str(name)]),
                **places,
                **{f"paper_{place}": theirs[number] if theirs else None for number, place in enumerate(PLACES)},
                "correlation": rank_correlation(each, theirs),
            }
        )
    places_names = [*PLACES, *(f"paper_{place}" for place in PLACES)]
    return pd.DataFrame(rows, columns=["architecture", "seeds", *places_names, "correlation"])


def rank_correlation(here: pd.Series, paper: tuple[str, ...] | None) -> float:
    """Correlate the ranks of the paper's seven methods with its table, where those after the third share a rank."""
    methods = [SMARTMIXED, *PAPER_POOL]
    if paper is None or not set(methods) <= {*here.index}:
        return float("nan")
    theirs = [paper.index(name) if name in paper else len(paper) for name in methods]
    return correlation(here[methods].to_numpy(np.float64), np.array(theirs, np.float64))


def correlation(one: Floats, other: Floats) -> float:
    """Return Spearman's correlation of values; NaN where one of them is constant."""
    one, other = rank(one), rank(other)
    if np.ptp(one) == 0 or np.ptp(other) == 0:
        return float("nan")
    return float(np.corrcoef(one, other)[0, 1])


def between_seeds(section: Section) -> pd.DataFrame:
    """Return how far two seeds agree on the ranking: architecture, correlation (Spearman, mean over pairs), pairs.

    It is the most that any other study could be expected to agree. Empty where all architectures have one seed.
    """
    rows = []
    for name, values in section.complete.items():
        pairs = [correlation(values[i], values[j]) for i in range(len(values)) for j in range(i)]
        known = [each for each in pairs if each == each]
        if known:
            rows.append((name, float(np.mean(known)), len(known)))
    return pd.DataFrame(rows, columns=["architecture", "correlation", "pairs"])


def rank_frequencies(section: Section) -> pd.DataFrame:
    """Return in how many architectures each method takes each rank (figure 7): rows methods, columns 1, 2, ...

    Methods that share places take the best of these.
    """
    lowest = ranks(section).rank(axis=1, method="min").astype(int)
    places = range(1, len(section.contenders) + 1)
    counts = {place: (lowest == place).sum() for place in places}
    return pd.DataFrame(counts, index=section.contenders).rename_axis("method")


def mrr(section: Section, draws: int = DRAWS) -> pd.DataFrame:
    """Return the mean reciprocal rank of each contender (eq. 12, figure 6): method, mrr, low, high, paper, n.

    `low` and `high` bound the 95 % interval of a bootstrap that draws architectures, and within each its seeds; NaN
    where there is one architecture with one seed. `paper` is the MRR that follows from the paper's table 1 for the same
    architectures: a lower bound, since ranks after the third are not in it and count as 0; NaN without a paper. `n` is
    the number of architectures.
    """
    complete = section.complete
    paper = {name: three for name, three in paper_places(section).items() if name in complete}
    rows = []
    reciprocal, drawn = 1 / ranks(section), _drawn_mrr(list(complete.values()), draws)
    for position, method in enumerate(section.contenders):
        bounds = NO_INTERVAL if drawn is None else quantiles(drawn[:, position])
        places = [1 / (1 + three.index(method)) if method in three else 0 for three in paper.values()]
        known = places and method in (SMARTMIXED, *PAPER_POOL)
        rows.append(
            {
                "method": method,
                "mrr": reciprocal[method].mean(),
                "low": bounds.low,
                "high": bounds.high,
                "paper": float(np.mean(places)) if known else float("nan"),
                "n": len(complete),
            }
        )
    return pd.DataFrame(rows, columns=["method", "mrr", "low", "high", "paper", "n"])


def _drawn_mrr(complete: list[Floats], draws: int) -> Floats | None:
    """Return the MRR (draws, contenders) of studies drawn from this one; seeds are drawn for all methods together."""
    if sum(map(len, complete)) < 2:
        return None
    sizes = np.array([len(each) for each in complete])
    values = np.zeros((len(complete), sizes.max(), complete[0].shape[1]))
    for row, each in zip(values, complete, strict=True):
        row[: len(each)] = each
    drawn, positions, weights = draw(sizes, draws)
    means = (values[drawn[:, :, None], positions] * weights[..., None]).sum(2)
    result: Floats = (1 / rank(means)).mean(1)
    return result


def best_fixed(section: Section) -> dict[str, str]:
    """Return the fixed activation with the best mean validation accuracy in each architecture.

    By validation, because the best of several test accuracies is the luckiest one too; over the seeds that all of them
    have, where there are such.
    """
    fixed = section.cells[section.cells["activation"] != SMARTMIXED]
    methods = fixed.groupby("architecture")["method"].transform("nunique")
    complete = fixed[fixed.groupby(["architecture", "seed"])["method"].transform("nunique") == methods]
    others = fixed[~fixed["architecture"].isin(complete["architecture"])]
    fixed = pd.concat([complete, others]).sort_index()
    means = fixed.groupby(["architecture", "method"], sort=False)["validation_accuracy"].mean()
    return {str(name): str(each.idxmax()[1]) for name, each in means.groupby(level=0, sort=False)}


def _ordered(table: pd.DataFrame, section: Section) -> pd.DataFrame:
    """Sort rows by the section's order of architectures and methods."""
    places = pd.DataFrame(
        {
            "architecture": table["architecture"].map(section.architectures.index),
            "method": table["method"].map(section.methods.index),
        }
    )
    order = places.sort_values(["architecture", "method"]).index
    return table.loc[order].reset_index(drop=True)
