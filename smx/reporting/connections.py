"""Weights between neurons by what they chose (figure 8)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from smx.reporting.resampling import Floats, by_group, mean, summary
from smx.reporting.study import Section
from smx.training.config import SMARTMIXED

COLUMNS = ["sender", "receiver", "mean", "count", "cells"]


def weights(section: Section, method: str = SMARTMIXED) -> pd.DataFrame:
    """Return the mean weight between hidden neurons over all cells: sender, receiver, mean, count (of weights), cells.

    A mean counts every weight once. A pair of activations that no network has is NaN. Cells without connections (those
    of one hidden layer) do not count.
    """
    cells = _connected(section, method)
    if not cells:
        return pd.DataFrame(columns=COLUMNS)
    pool = cells[0][1]
    total, count = np.sum([cell[2] for cell in cells], axis=0), np.sum([cell[3] for cell in cells], axis=0)
    having = np.sum([cell[3] > 0 for cell in cells], axis=0)
    rows = [
        (sender, receiver, total[i, j] / count[i, j] if count[i, j] else np.nan, int(count[i, j]), int(having[i, j]))
        for i, sender in enumerate(pool)
        for j, receiver in enumerate(pool)
    ]
    return pd.DataFrame(rows, columns=COLUMNS)


def out_of(section: Section, sender: str = "elu", method: str = SMARTMIXED) -> dict[str, Any] | None:
    """Compare the mean weight out of neurons of one activation with that out of all others, cell by cell.

    Returns:
        None if no cell has both; else `mean` and `rest` (mean weights), `difference`, `low`, `high` (95 %, bootstrap
        over architectures and cells), `test`, `p`, `cells`, `architectures`, `rank` (of the sender's mean weight in the
        whole table among the senders, 1 the most positive), `senders`.
    """
    means = []
    for architecture, pool, sums, counts in _connected(section, method):
        own = np.array([name == sender for name in pool])
        if counts[own].sum() and counts[~own].sum():
            means.append((architecture, sums[own].sum() / counts[own].sum(), sums[~own].sum() / counts[~own].sum()))
    if not means:
        return None
    architectures, one, rest = zip(*means, strict=True)
    groups = by_group(np.subtract(one, rest), architectures)
    table = weights(section, method).groupby("sender")[["mean", "count"]].apply(_mean_weight).dropna()
    return {
        "mean": mean(by_group(one, architectures)),
        "rest": mean(by_group(rest, architectures)),
        **summary(groups, "difference"),
        "cells": len(means),
        "rank": int(table.rank(ascending=False)[sender]),
        "senders": len(table),
    }


def _mean_weight(pairs: pd.DataFrame) -> float:
    count = pairs["count"].sum()
    return float((pairs["mean"].fillna(0) * pairs["count"]).sum() / count) if count else float("nan")


def _connected(section: Section, method: str) -> list[tuple[str, list[str], Floats, Floats]]:
    """Return architecture, pool, sums and counts (K, K) of each cell that has weights between hidden neurons."""
    cells = section.cells[section.cells["method"] == method].to_dict("records")
    found = []
    for cell in cells:
        if isinstance(cell.get("connections"), dict):
            sums, counts = (np.array(cell["connections"][name], np.float64) for name in ("sum", "count"))
            pool = str(cell["pool"]).split(",")
            if counts.shape == (len(pool), len(pool)) and counts.any():
                found.append((cell["architecture"], pool, sums, counts))
    return found
