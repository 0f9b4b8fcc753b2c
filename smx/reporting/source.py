"""Reading what a report is made from: a run, a sweep's folder, or a table."""

from __future__ import annotations

import math
import os
import sys
from pathlib import Path

import pandas as pd

from smx.errors import InputError
from smx.reporting.nested import check_nested
from smx.reporting.study import Study, architecture_of
from smx.study import table
from smx.study.cell import DONE, RUN_FILES
from smx.study.listing import CELLS
from smx.training.config import FIELDS, as_text

RUN, SWEEP, TABLE = "run", "sweep", "table"


def read_source(path: str | os.PathLike[str], data_dir: Path | None = None) -> Study:
    """Read a run's folder, a sweep's folder, or a table that `smx sweep --collect` wrote.

    Args:
        path: which one.
        data_dir: where downloaded data sets are. A run is evaluated on its test set for `test_loss` and
            `calibration_error`; without its data, these are left out.

    Raises:
        InputError: there is none of these at `path`, or it is damaged, or no cell is done.
    """
    source = Path(path)
    if not source.is_dir():
        kind, cells = TABLE, table.read(source)
    elif (source / CELLS).exists():
        kind, cells = SWEEP, table.collect(source)
    elif any((source / name).exists() for name in RUN_FILES):
        from smx.study.finished import row_of_run  # here, because it loads torch

        kind, cells = RUN, table.frame([row_of_run(source, data_dir)])
    else:
        raise InputError(f"{source} holds neither a run of smx train nor a sweep; give one of these, or a table")
    return study(source, kind, cells)


def study(source: Path, kind: str, cells: pd.DataFrame) -> Study:
    """Make a study of a table's rows; settings that the table does not have get their defaults.

    A cell counts once, though a table that was put together of others may have it in several rows.

    Raises:
        InputError: no cell is done, or one that is has no test accuracy.
    """
    cells = _once(cells)
    cells["method"] = cells["method"].map(str)
    for name, field in FIELDS.items():
        default = as_text(field.default) if isinstance(field.default, tuple) else field.default
        if name == "activation":
            default = cells["method"]
        cells[name] = cells[name].fillna(default) if name in cells else default
        if isinstance(field.default, str | tuple):
            cells[name] = cells[name].map(str)
    cells["method"] = _told_apart(cells, "method", "activation")
    if "data_fingerprint" in cells:
        cells["data"] = _told_apart(cells, "data", "data_fingerprint")
    cells["architecture"] = [architecture_of(row) for row in cells.to_dict("records")]
    done = cells["status"] == DONE
    if not done.any():
        raise InputError(f"{source} has no cell that is done, among {len(cells)}; run its sweep first")
    check_nested(source, cells[done])
    for name in cells.columns.intersection((*table.NUMBERS, "seed")):
        try:
            if cells[name].map(type).eq(bool).any():
                raise TypeError("it is true or false")
            cells[name] = pd.to_numeric(cells[name])
        except (TypeError, ValueError, OverflowError) as error:
            raise InputError(f"{source} has a {name} that is no number ({error}); collect the table anew") from error
        most = 1.0 if "accuracy" in name else math.inf if name == "test_loss" else sys.float_info.max
        if not cells[name][done].dropna().between(0, most).all():
            raise InputError(f"{source} has a {name} that is below 0 or too large; collect the table anew")
    for name in ("test_accuracy", "validation_accuracy"):
        if name not in cells or cells[name][done].isna().any():
            raise InputError(f"{source} has a done cell without a {name}; collect the table anew")
    return Study(source, kind, cells)


def _told_apart(cells: pd.DataFrame, name: str, by: str) -> pd.Series[str]:
    """Return a column of names; one that has stood for several things, as `by` says, gets these in brackets."""
    several = (cells.groupby(name)[by].transform("nunique") > 1) & cells[by].notna()
    return cells[name].where(~several, cells[name] + " (" + cells[by].map(str) + ")")


def _once(cells: pd.DataFrame) -> pd.DataFrame:
    """Return one row of each cell: the first that is done, or the first. Rows without a cell's id are cells each."""
    if "cell" not in cells:
        return cells.copy()
    done_first = cells.sort_values("status", key=lambda status: status != DONE, kind="stable")
    again = done_first.duplicated("cell") & done_first["cell"].notna()
    return done_first[~again].sort_index()
