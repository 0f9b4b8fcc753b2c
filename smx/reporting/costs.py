"""What methods cost and how sure their networks are: training time, latency, calibration."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from smx.reporting.resampling import by_group, interval, mean
from smx.reporting.study import Section

RATIOS = ["ratio", "low", "high", "pairs"]


def calibration(section: Section) -> pd.DataFrame:
    """Return by method: method, calibration_error, low, high, test_loss, cells.

    Means over architectures of means over seeds, with the 95 % interval of a bootstrap over both. Empty where no cell
    was measured.
    """
    columns = ["method", "calibration_error", "low", "high", "test_loss", "cells"]
    rows = []
    for method in section.methods:
        cells = section.cells[section.cells["method"] == method]
        cells = cells.reindex(columns=["architecture", "calibration_error", "test_loss"]).dropna()
        if len(cells):
            errors = by_group(cells["calibration_error"], cells["architecture"])
            losses = by_group(cells["test_loss"], cells["architecture"])
            rows.append((method, mean(errors), *interval(errors), mean(losses), len(cells)))
    return pd.DataFrame(rows, columns=columns)


def training(section: Section, base: str = "relu") -> pd.DataFrame:
    """Return by method: method, seconds, ratio, low, high, pairs.

    `seconds`: of a cell, the mean over architectures; the processor's where all cells have them, else the clock's,
    which other work on the machine changes. `ratio`: to the seconds of `base` in the same architecture and
    seed with as many threads, the geometric mean, with its interval as in `calibration`; NaN where no pair is.
    """
    cells = section.cells.reindex(columns=["method", "architecture", "seed", "threads", "seconds", "processor_seconds"])
    if cells["processor_seconds"].notna().all():
        cells["seconds"] = cells["processor_seconds"]
    cells = cells.drop(columns="processor_seconds")
    cells["threads"] = cells["threads"].fillna(0)
    return _relative(cells.dropna(), section.methods, base, "seconds")


def latency(section: Section) -> pd.DataFrame:
    """Return by method and batch size the time of the exported networks relative to ReLU's, where it was measured.

    Columns: method, batch_size, ratio (the geometric mean, with its interval as in `calibration`), low, high, cells.
    Each cell's own ratio is that of its file to its architecture's with ReLU, timed side by side.
    """
    rows = [
        (cell["method"], int(size), cell["architecture"], float(found["ratio"]))
        for cell in section.cells.to_dict("records")
        if isinstance(cell.get("latency"), dict)
        for size, found in cell["latency"].items()
        if isinstance(found, dict) and found.get("ratio", 0) > 0
    ]
    table = pd.DataFrame(rows, columns=["method", "batch_size", "architecture", "ratio"])
    found = []
    for (size, method), cells in table.groupby(["batch_size", "method"], sort=True):
        logs = by_group(np.log(cells["ratio"]), cells["architecture"])
        found.append((method, size, *np.exp([mean(logs), *interval(logs)]).tolist(), len(cells)))
    return pd.DataFrame(found, columns=["method", "batch_size", "ratio", "low", "high", "cells"])


def trade(section: Section) -> pd.DataFrame:
    """Return by method what its networks' accuracy costs in latency, where both were measured, the quickest first.

    Columns: method; ratio, the latency relative to ReLU's, the geometric mean over batch sizes and architectures;
    accuracy, the mean test accuracy of the same networks; low and high, its interval as in `calibration`; front,
    whether no other method is at least as accurate and as quick, and better in one of them.
    """
    rows = []
    for cell in section.cells.to_dict("records"):
        found = cell.get("latency")
        ratios = [float(each.get("ratio", 0)) for each in found.values()] if isinstance(found, dict) else []
        if ratios and min(ratios) > 0:
            rows.append((cell["method"], cell["architecture"], np.mean(np.log(ratios)), cell["test_accuracy"]))
    table = pd.DataFrame(rows, columns=["method", "architecture", "log", "accuracy"])
    means = [
        (method, float(np.exp(mean(by_group(own["log"], at)))), mean(accuracies), *interval(accuracies))
        for method, own in table.groupby("method", sort=False)
        for at in [own["architecture"]]
        for accuracies in [by_group(own["accuracy"], at)]
    ]
    found = pd.DataFrame(means, columns=["method", "ratio", "accuracy", "low", "high"])
    found = found.sort_values(["ratio", "accuracy"])
    points = list(zip(found["ratio"], found["accuracy"], strict=True))
    found["front"] = [
        not any((a >= accuracy and r <= ratio) and (a > accuracy or r < ratio) for r, a in points)
        for ratio, accuracy in points
    ]
    return found.reset_index(drop=True)


def _relative(cells: pd.DataFrame, methods: list[str], base: str, value: str) -> pd.DataFrame:
    """Return by method the mean of a column and its ratio to that of `base`."""
    keys = ["architecture", "seed", "threads"]
    cells = cells[cells[value] > 0]
    bases = cells[cells["method"] == base].drop_duplicates(keys)[[*keys, value]]
    rows: list[dict[str, Any]] = []
    for method in methods:
        own = cells[cells["method"] == method]
        if own.empty:
            continue
        pairs = own.merge(bases, on=keys, suffixes=("", "_base"))
        logs = by_group(np.log(pairs[value] / pairs[f"{value}_base"]), pairs["architecture"])
        ratios = np.exp([mean(logs), *interval(logs)]).tolist()
        centre = mean(by_group(own[value], own["architecture"]))
        rows.append({"method": method, value: centre, **dict(zip(RATIOS, [*ratios, len(pairs)], strict=True))})
    return pd.DataFrame(rows, columns=["method", value, *RATIOS])
