"""`cells.json`: which cells a sweep's folder is for, done or not."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from smx import files
from smx.errors import InputError
from smx.study.grid import Cell, cell_of

CELLS = "cells.json"


def read_cells(out: Path) -> list[Cell]:
    """Return the cells that sweeps in `out` were to make, in the order in which they were asked for.

    Raises:
        InputError: there is no sweep, or its list is damaged.
    """
    path = out / CELLS
    try:
        cells = [cell_of(settings) for settings in json.loads(path.read_text(encoding="utf-8"))["cells"]]
        if not cells:
            raise ValueError("it lists no cell")
        return cells
    except FileNotFoundError as error:
        raise InputError(f"{out} holds no sweep (no {CELLS}); give a grid with --config") from error
    except OSError as error:
        raise InputError(f"{path} can't be read ({error.strerror})") from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(f"{path} is damaged ({error}); remove it, and give the grid again") from error


def add_cells(out: Path, cells: Iterable[Cell]) -> list[Cell]:
    """Add cells to the list of a folder, those that it does not have; return all."""
    known = {cell.id: cell for cell in (read_cells(out) if (out / CELLS).exists() else ())}
    for cell in cells:
        known.setdefault(cell.id, cell)
    listed = {"cells": [cell.settings for cell in known.values()]}
    files.write_text(out / CELLS, json.dumps(listed, indent=1, ensure_ascii=False) + "\n")
    return list(known.values())
