"""The columns of a table that hold dicts: whether they are what a report can read."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from smx.errors import InputError
from smx.study.cell import is_between

CURVES = ("phase", "train_loss", "validation_loss", "train_accuracy", "validation_accuracy")


def check_nested(source: Path, cells: pd.DataFrame) -> None:
    """Refuse cells whose columns of dicts are of another form than `smx.study.cell.train_cell` makes.

    Raises:
        InputError: it names the cell and the column.
    """
    for column, fits in FORMS.items():
        for cell, value in zip(cells["cell"], cells.get(column, ()), strict=False):
            if isinstance(value, dict) and not fits(value):
                raise InputError(f"{source}: {column} of the cell {str(cell)[:40]} are damaged; collect the table anew")


def _shares(value: object) -> bool:
    return _each(value, lambda layer: _each(layer, _is_share))


def _shares_by_epoch(value: object) -> bool:
    return _each(value, lambda layer: _each(layer, lambda each: isinstance(each, list) and all(map(_is_share, each))))


def _curves(value: dict[str, object]) -> bool:
    columns = [value.get(name) for name in CURVES]
    lengths = {len(each) if isinstance(each, list) else -1 for each in value.values()}
    return all(map(_are_numbers, columns)) and len(lengths) == 1


def _connections(value: dict[str, object]) -> bool:
    try:
        shapes = {np.asarray(value[name], np.float64).shape for name in ("sum", "count")}
    except (KeyError, TypeError, ValueError, OverflowError):
        return False
    (shape,) = shapes if len(shapes) == 1 else ((),)
    return len(shape) == 2 and shape[0] == shape[1]


def _latency(value: dict[str, object]) -> bool:
    numbers = _each(value, lambda size: isinstance(size, dict) and _is_finite(size.get("ratio")))
    return numbers and all(size.isdecimal() for size in value)


def _each(value: object, fits: Callable[[object], bool]) -> bool:
    return isinstance(value, dict) and all(fits(each) for each in value.values())


def _are_numbers(value: object) -> bool:
    return isinstance(value, list) and all(_is_number(each) for each in value)


def _is_number(value: object) -> bool:
    """As the loss of a run is, which may have gone beyond all numbers; of a whole number that fits."""
    return isinstance(value, float) or _is_finite(value)


def _is_finite(value: object) -> bool:
    return is_between(value, -sys.float_info.max, sys.float_info.max)


def _is_share(value: object) -> bool:
    return is_between(value, 0, 1 + 1e-6)


FORMS: dict[str, Callable[[dict[str, object]], bool]] = {
    "shares": _shares,
    "shares_by_epoch": _shares_by_epoch,
    "curves": _curves,
    "connections": _connections,
    "latency": _latency,
}
