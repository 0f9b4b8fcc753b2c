"""Tables of studies with results that are made by hand, so that what a report must say of them is known."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from smx.reporting.source import TABLE, study
from smx.reporting.study import Section, Study
from smx.study import table
from smx.study.grid import Cell, read_grid
from smx.study.methods import PAPER_METHODS

Result = Callable[[Cell], Mapping[str, Any] | str | None]
DEEP = ((8,), (8, 4), (8, 4, 4), (8, 8, 4, 4), (16, 8, 4), (16, 8, 8, 4), (16, 8, 8, 4, 4), (16, 16, 8, 8, 4, 4))
"""Architectures of several depths, six of them with three or more hidden layers."""


def frame(result: Result, methods: Mapping[str, Any] | None = None, **axes: Sequence[Any]) -> pd.DataFrame:
    """Return a table of a grid, with each cell's results: a mapping, the error of a failed one, or None."""
    rows = []
    for cell in read_grid({"grid": axes, "methods": methods or {}}).cells():
        found = result(cell)
        rows.append(table.row(cell, None, found) if isinstance(found, str) else table.row(cell, found))
    return table.frame(rows)


def study_of_frames(*frames: pd.DataFrame) -> Study:
    """Return the study of several tables together."""
    return study(Path("made.csv"), TABLE, pd.concat(frames, ignore_index=True))


def made(result: Result, **axes: Sequence[Any]) -> Study:
    """Return the study of such a table."""
    return study(Path("made.csv"), TABLE, frame(result, None, **axes))


def section(accuracy: Callable[[Cell], float | None], **axes: Sequence[Any]) -> Section:
    """Return the only section of a study that has accuracies, and no more; None is a missing cell."""

    def result(cell: Cell) -> dict[str, Any] | None:
        value = accuracy(cell)
        return None if value is None else accuracies(value)

    axes = {"hidden": [(8,), (8, 4)], "method": PAPER_METHODS, "seed": [0], **axes}
    (only,) = made(result, **axes).sections
    return only


def accuracies(test: float) -> dict[str, Any]:
    return {"test_accuracy": test, "validation_accuracy": test}


def chosen(cell: Cell, shares: Callable[[float], Mapping[str, float]], test: float = 0.5) -> dict[str, Any]:
    """Return the results of a cell whose shares are a function of the relative depth of its hidden layers."""
    depth = len(cell.config.hidden) - 1
    layers = {f"layer{i + 1}": dict(shares(i / max(1, depth))) for i in range(depth + 1)}
    return {**accuracies(test), "shares": layers}
