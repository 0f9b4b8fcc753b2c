"""`cells.json`: which cells a sweep's folder is for, done or not."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from smx import files
from smx.errors import InputError
from smx.study.grid import Cell, cell_of

CELLS = "cells.json"


def belongs_to(path: Path, out: Path) -> bool:
    """Say whether a file is the list of a sweep's folder, or lies in one of its cells."""
    place = path.resolve()
    return place == (out / CELLS).resolve() or (out / "cells").resolve() in place.parents


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
    except InputError as error:  # of a setting, as an activation that only another process has registered
        raise InputError(f"{path} lists a cell that can't be made here: {error}") from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(f"{path} is damaged ({error}); remove it, and give the grid again") from error


def add_cells(out: Path, cells: Iterable[Cell]) -> list[Cell]:
    """Add cells to the list of a folder, and return all. A cell that it has already gets the name that it has now."""
    known = {cell.id: cell for cell in (read_cells(out) if (out / CELLS).exists() else ())}
    known |= {cell.id: cell for cell in cells}
    listed = {"cells": [cell.settings for cell in known.values()]}
    files.write_text(out / CELLS, json.dumps(listed, indent=1, ensure_ascii=False) + "\n")
    return list(known.values())
