"""The table of a study: one row a cell, its settings under their names, its results beside them."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from smx import files
from smx.errors import InputError
from smx.study.cell import DONE, FAILED, MISSING, PHASE1, CellFolder, is_accuracy, is_between
from smx.study.grid import METHOD, Cell, cell_of
from smx.study.listing import read_cells
from smx.training.config import FIELDS

NESTED = ("curves", "shares", "shares_by_epoch", "connections", "latency", "machine")
"""Columns that hold dicts, in files as JSON."""
TEXTS = ("cell", "status", METHOD, "data_fingerprint", "finished", "error")
ACCURACIES = ("test_accuracy", "validation_accuracy")
"""What every finished cell has."""
NUMBERS = (
    *("test_accuracy", "validation_accuracy", "test_loss", "calibration_error", "epochs", "best_epoch"),
    *(f"phase1_{name}" for name in PHASE1),
    *("seconds", "phase1_seconds", "processor_seconds", "threads", "parameters", "neurons", "classes"),
)
"""Results that are numbers, 0 or more."""
RESULTS = (*NUMBERS, *NESTED, "data_fingerprint", "finished")
FORMATS = (".csv", ".parquet")


def row(cell: Cell, result: Mapping[str, Any] | None = None, error: str | None = None) -> dict[str, Any]:
    """Return a cell's row: with its result it is done, with an error failed, with neither missing."""
    status = DONE if result is not None else FAILED if error is not None else MISSING
    own = {"cell": cell.id, "status": status, **cell.settings}
    return {**own, **(result or {}), **own, "error": error}


def frame(rows: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """Return rows as a data frame."""
    return pd.DataFrame(list(rows))


def collect(out: Path, cells: Iterable[Cell] | None = None) -> pd.DataFrame:
    """Return the table of a sweep's folder, a row for each cell; without cells, each that a sweep there was to make.

    Raises:
        InputError: the folder holds no sweep, or a damaged one.
    """
    folders = ((cell, CellFolder.of(cell, out)) for cell in (read_cells(out) if cells is None else cells))
    return frame(row(cell, folder.result(), folder.error()) for cell, folder in folders)


def known_results(table: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """Return the results of a table's finished cells by the cells' ids, which are computed anew from their settings.

    Raises:
        InputError: a setting has a bad value, a finished cell has no accuracy, or its settings are not all among those
            of this version of smx, so that it is another cell than its settings here say.
    """
    found = {}
    for values in rows(table):
        if values.get("status") == DONE:
            cell = cell_of(values)
            unknown = values.keys() - {"cell", "status", "error", *cell.settings, *RESULTS}
            if unknown and values.get("cell") != cell.id:
                raise InputError(f"the table has settings that this smx does not know: {', '.join(sorted(unknown))}")
            if bad := [name for name in ACCURACIES if not is_accuracy(values.get(name))]:
                raise InputError(f"the table's finished cell {cell.id} has no {bad[0]} between 0 and 1")
            if bad := [name for name in NUMBERS if not is_between(values.get(name, 0), 0, math.inf)]:
                raise InputError(f"the table's finished cell {cell.id} has the {bad[0]} {values[bad[0]]!r:.40}")
            own = {"cell", "status", "error", *cell.settings}
            found[cell.id] = {name: value for name, value in values.items() if name not in own}
    return found


def rows(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the rows as plain values, without those that are missing.

    A whole number is one again: in pandas a column becomes one of floats where a value is missing.
    """
    records = table.to_dict("records")
    return [{str(name): _whole(name, value) for name, value in each.items() if not _missing(value)} for each in records]


def _whole(name: object, value: Any) -> Any:
    field = FIELDS.get(str(name))
    whole = isinstance(value, float) and value.is_integer() and field and not isinstance(field.default, float)
    return int(value) if whole else value


def check_format(path: Path) -> None:
    """Refuse a path that is neither .csv nor .parquet."""
    if path.suffix not in FORMATS:
        raise InputError(f"{path} must end in {' or '.join(FORMATS)}")


def write(table: pd.DataFrame, path: Path) -> None:
    """Write a table as CSV or Parquet, by the suffix of its name, atomically.

    Raises:
        InputError: the suffix is another, or the folder can't be written to.
    """
    check_format(path)
    made = table.copy()
    for name in made.columns:
        if name in NESTED:
            made[name] = [None if _missing(value) else json.dumps(value) for value in made[name]]
        elif len({type(value) for value in made[name] if not _missing(value)}) > 1 and made[name].dtype == object:
            made[name] = [None if _missing(value) else str(value) for value in made[name]]
    with files.replacing(path) as temporary:
        if path.suffix == ".csv":
            made.to_csv(temporary, index=False)
        else:
            made.to_parquet(temporary, index=False, compression="zstd")


def read(path: Path) -> pd.DataFrame:
    """Read what `write` wrote.

    Raises:
        InputError: the file is missing, no table, or no table of cells.
    """
    check_format(path)
    if path.exists() and not path.is_file():
        raise InputError(f"{path} is no file; expected a table that smx sweep --collect wrote")
    try:
        if path.suffix == ".csv":
            table = _typed(pd.read_csv(path, dtype=str, keep_default_na=False))
        else:
            table = _plain(pd.read_parquet(path))
        for name in table.columns.intersection(NESTED):
            table[name] = [None if _missing(value) else _decoded(value) for value in table[name]]
    except FileNotFoundError as error:
        raise InputError(f"{path} does not exist; expected a table that smx sweep --collect wrote") from error
    except (OSError, ValueError, RecursionError) as error:  # pandas' and pyarrow's errors are among them
        raise InputError(f"{path} is no table of a sweep ({' '.join(str(error).split())[:200]})") from error
    if missing := {"cell", "status", METHOD} - {*table.columns}:
        raise InputError(f"{path} has no column {min(missing)!r}; expected a table that smx sweep --collect wrote")
    return table


def _plain(table: pd.DataFrame) -> pd.DataFrame:
    """Return a table whose columns hold what `write` wrote: texts, numbers, and words for true and false."""
    for name in table.columns:
        kinds = {type(value) for value in table[name].tolist() if not _missing(value)}
        if strange := {kind.__name__ for kind in kinds - {str, int, float, bool}}:
            raise ValueError(f"the column {str(name)[:40]!r} holds values of the type {min(strange)}")
    return table


def _typed(table: pd.DataFrame) -> pd.DataFrame:
    """Give the columns of a CSV file their types."""
    typed = {}
    for name in table.columns:
        texts = [None if text == "" else text for text in table[name]]
        default = FIELDS[name].default if name in FIELDS else None
        if isinstance(default, bool):
            typed[name] = pd.Series([None if text is None else _truth(name, text) for text in texts], dtype=object)
        elif name in NESTED or name in TEXTS or isinstance(default, str | tuple):
            typed[name] = pd.Series(texts, dtype=object)
        else:
            typed[name] = _numbers(texts)
    return pd.DataFrame(typed)


def _truth(name: str, text: str) -> bool:
    """Read true or false, as smx and as spreadsheets write it."""
    if text.lower() not in ("true", "false"):
        raise ValueError(f"{name} is {text[:40]!r}, expected true or false")
    return text.lower() == "true"


def _numbers(texts: list[str | None]) -> pd.Series:
    try:
        return pd.to_numeric(pd.Series(texts, dtype=object))
    except ValueError:  # a number or a word, as phase1_epochs
        return pd.Series(texts, dtype=object)


def _decoded(text: object) -> object:
    value = json.loads(str(text))
    if not isinstance(value, dict):
        raise ValueError(f"expected an object, got {str(text)[:40]}")
    return value


def _missing(value: object) -> bool:
    return value is None or value is pd.NA or (isinstance(value, float) and math.isnan(value))
