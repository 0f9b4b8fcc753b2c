"""Figures 1 and 2 and Table 3: the curves and the accuracies of each phase."""

from __future__ import annotations

from typing import Any

import pandas as pd

from smx.paper import LARGEST, TABLE_3
from smx.reporting.ranks import PAPER_DATA
from smx.reporting.study import Section
from smx.training.config import SMARTMIXED

PHASES = {
    "phase 1": "phase1_{}_accuracy",
    "phase 1, sampled": "phase1_{}_accuracy_sampled",
    "phase 2": "{}_accuracy",
}
"""The rows of table 3, and the columns of the study's table that they are made from."""
PAPER_ARCHITECTURE = "-".join(map(str, LARGEST[1:-1]))
CURVES = ["train_loss", "validation_loss", "train_accuracy", "validation_accuracy"]


def table_3(section: Section, method: str = SMARTMIXED) -> pd.DataFrame:
    """Return the accuracies of each phase by architecture, means over the seeds.

    Columns: architecture, phase ("phase 1", "phase 1, sampled", "phase 2"; sampled is with the noise left on, as the
    author's code evaluates), validation_accuracy, validation_deviation, test_accuracy, test_deviation, n,
    paper_validation, paper_test (of the paper's representative network on its data; None for others).
    """
    cells = section.cells[section.cells["method"] == method]
    rows: list[dict[str, Any]] = []
    for architecture, each in cells.groupby("architecture", sort=False):
        compared = architecture == PAPER_ARCHITECTURE and set(each["data"]) == {PAPER_DATA}
        for phase, column in PHASES.items():
            names = [column.format(part) for part in ("validation", "test")]
            values = each.reindex(columns=names).astype(float).dropna()
            if values.empty:
                continue
            paper = TABLE_3[phase[:7].replace(" ", "")] if compared else (None, None)
            rows.append(
                {
                    "architecture": architecture,
                    "phase": phase,
                    "validation_accuracy": values[names[0]].mean(),
                    "validation_deviation": values[names[0]].std(),
                    "test_accuracy": values[names[1]].mean(),
                    "test_deviation": values[names[1]].std(),
                    "n": len(values),
                    "paper_validation": paper[0],
                    "paper_test": paper[1],
                }
            )
    return pd.DataFrame(rows)


def curves(section: Section, architecture: str, method: str = SMARTMIXED) -> pd.DataFrame:
    """Return means over the seeds of what epochs recorded (figures 1, 2).

    Columns: phase, epoch (in the phase), train_loss, validation_loss, train_accuracy, validation_accuracy. Only epochs
    that all seeds have.
    """
    cells = section.cells[(section.cells["method"] == method) & (section.cells["architecture"] == architecture)]
    tables = [pd.DataFrame(each)[["phase", *CURVES]] for each in cells.get("curves", ()) if isinstance(each, dict)]
    if not tables:
        return pd.DataFrame(columns=["phase", "epoch", *CURVES])
    epochs = pd.concat([table.assign(epoch=table.groupby("phase").cumcount() + 1) for table in tables])
    grouped = epochs.groupby(["phase", "epoch"])
    means = grouped[CURVES].mean()[grouped.size() == len(tables)]
    return means.reset_index()
