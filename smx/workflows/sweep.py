"""Many training runs, as a grid of cells; each is trained once, whatever happens to the sweep."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from smx import files
from smx.errors import InputError, SmxError, one_line
from smx.study.grid import METHOD, Cell, read_grid, value_of
from smx.study.listing import add_cells, read_cells
from smx.training.config import as_text
from smx.workflows import OnProgress, listed, silent

if TYPE_CHECKING:
    import pandas as pd

    from smx.study.runner import Outcome

LATENCY_BATCHES = (1, 128)
"""Examples a run, in which latency is measured."""
Only = Mapping[str, Any] | Sequence[tuple[str, Any]]
GridLike = str | os.PathLike[str] | Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class SweepReport:
    """The state of a sweep.

    Attributes:
        out: its folder.
        frame: a row for each of its cells; the column `status` is done, failed or missing.
        unmeasured: by the ids of cells, why `measure` found no latency.
    """

    out: Path
    frame: pd.DataFrame
    unmeasured: Mapping[str, str] = field(default_factory=dict)

    @property
    def counts(self) -> dict[str, int]:
        """How many cells are done, failed and missing."""
        statuses = list(self.frame["status"])
        return {status: statuses.count(status) for status in ("done", "failed", "missing")}

    @property
    def failed(self) -> dict[str, str]:
        """Why cells failed, by their ids."""
        rows = self.frame[self.frame["status"] == "failed"]
        return dict(zip(rows["cell"], rows["error"], strict=True))

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        from smx.study.table import rows

        return {"out": str(self.out), **self.counts, "unmeasured": dict(self.unmeasured), "cells": rows(self.frame)}

    def _repr_html_(self) -> str:
        html: str = self.frame.to_html()
        return html


def plan(
    grid: GridLike,
    *,
    seeds: int | Sequence[int] | None = None,
    settings: Mapping[str, Any] | None = None,
    only: Only = (),
) -> list[Cell]:
    """Return the cells of a grid.

    Args:
        grid: a TOML file's path, the name of a grid that comes with smx, or the content of such a file.
        seeds: instead of the grid's.
        settings: single settings by name; they win over the grid's.
        only: pairs of a setting, or `method`, and a value, or a mapping to a value or a list of them: a cell must have
            one of the values of each that is named.

    Raises:
        InputError: the grid or a setting can't be used, or no cell is left.
    """
    return _selected(_all_cells(grid, seeds, settings), only)


def sweep(
    grid: GridLike | None = None,
    *,
    out: str | os.PathLike[str],
    jobs: int = 1,
    seeds: int | Sequence[int] | None = None,
    settings: Mapping[str, Any] | None = None,
    only: Only = (),
    known: str | os.PathLike[str] | None = None,
    retry: bool = False,
    ray: str | None = None,
    data_dir: str | os.PathLike[str] | None = None,
    trust_code: bool = False,
    on_plan: Callable[[Sequence[Cell], int], None] = lambda cells, done: None,
    on_start: Callable[[Cell], None] = lambda cell: None,
    on_end: Callable[[Cell, Outcome], None] = lambda cell, outcome: None,
) -> SweepReport:
    """Train the cells of a grid that are not done.

    Each cell has a folder `OUT/cells/HASH`, and is done when its `result.json` is there. A sweep that is killed loses
    the epochs since the last checkpoints; started again, it goes on. A cell that fails stops no other one.

    Args:
        grid, seeds, settings, only: see `plan`; without a grid, the cells that earlier sweeps in `out` were to make.
        out: the folder of the sweep; grids add up in it.
        jobs: processes that train cells side by side; they divide the cores among them. A Ray cluster that is not
            started here has as many as it has cores.
        known: a table (.csv, .parquet) whose finished cells are taken as done.
        retry: train cells again that have failed.
        ray: train the cells as Ray tasks, on the cluster of this address or, for `local`, on one that is started here.
        data_dir: where downloaded data sets are, see `smx.data.load`.
        trust_code: import the Python modules of networks (`module:factory`) that the grid names.
        on_plan: called first with all cells and how many of them are done.
        on_start, on_end: called when a cell's training begins, and with its outcome.

    Raises:
        InputError: the grid, the folder or the table can't be used, an activation is registered in this process alone,
            or another sweep runs in the folder.
    """
    from smx import activations
    from smx.study.cell import CellFolder
    from smx.study.runner import in_processes

    folder, data_dir = Path(out), Path(data_dir) if data_dir else None
    if jobs < 1:
        raise InputError(f"jobs must be at least 1, got {jobs}")
    whole = _cells(folder, grid, seeds, settings)
    cells = _selected(whole, only)
    _require_trust(cells, trust_code)
    pools = {name for cell in cells if ":" not in cell.config.model for name in cell.config.candidates}
    if own := sorted(name for name in pools if not activations.is_built_in(activations.get(name))):
        raise InputError(f"{own[0]!r} is registered in this process alone, and cells are trained in others")
    results = _known(Path(known)) if known is not None else {}
    with files.locked(files.make_folder(folder)):
        add_cells(folder, whole)
        waiting = []
        for cell in cells:
            place = CellFolder.of(cell, folder)
            if place.result() is not None:
                continue
            if cell.id in results:
                place.finish(results[cell.id])
            elif retry or place.error() is None:
                waiting.append(cell)
        on_plan(cells, len(cells) - len(waiting))
        if ray is None:
            outcomes = in_processes(waiting, folder, data_dir, jobs, on_start)
        else:
            from smx.study.on_ray import on_ray

            outcomes = on_ray(waiting, folder, data_dir, ray, jobs, on_start)
        for cell, outcome in outcomes:
            on_end(cell, outcome)
    return _report(folder, cells)


def _cells(
    folder: Path, grid: GridLike | None, seeds: int | Sequence[int] | None, settings: Mapping[str, Any] | None
) -> list[Cell]:
    """Return the cells of a grid; without one, those that earlier sweeps in the folder were to make."""
    if grid is None and (settings or seeds is not None):
        raise InputError("seeds and settings are a grid's; give one")
    return read_cells(folder) if grid is None else _all_cells(grid, seeds, settings)


def _known(path: Path) -> dict[str, dict[str, Any]]:
    """Return the results of a table's finished cells by their ids."""
    from smx.study import table

    found = table.read(path)
    try:
        return table.known_results(found)
    except InputError as error:
        raise InputError(
            f"{path} can't stand for finished cells: {error}; leave out --known, or collect it anew"
        ) from error


def status(
    out: str | os.PathLike[str],
    grid: GridLike | None = None,
    *,
    seeds: int | Sequence[int] | None = None,
    settings: Mapping[str, Any] | None = None,
    only: Only = (),
) -> SweepReport:
    """Return the state of the cells in a sweep's folder, or of a grid's cells there, see `sweep`.

    Raises:
        InputError: the folder holds no sweep, the grid can't be used, or no cell is left.
    """
    return _report(Path(out), _selected(_cells(Path(out), grid, seeds, settings), only))


def measure(
    out: str | os.PathLike[str],
    grid: GridLike | None = None,
    *,
    seeds: int | Sequence[int] | None = None,
    settings: Mapping[str, Any] | None = None,
    only: Only = (),
    trust_code: bool = False,
    on_progress: OnProgress = silent,
) -> SweepReport:
    """Export the finished networks, and time each beside its architecture with ReLU.

    The results get `latency`: by batch size the `ratio` of the sorted file's time to ReLU's, with its 99 % interval
    `low` to `high`, on one thread. Nothing else should run meanwhile. What has a latency is not measured again, and
    ReLU's is 1. A network that can't be exported or timed stops no other one: the report says why.

    The cells are those of `status`; trust_code as for `sweep`.

    Raises:
        InputError: the folder holds no sweep, the grid can't be used, or no cell is left.
    """
    from smx.study.cell import CellFolder

    folder = Path(out)
    cells = _selected(_cells(folder, grid, seeds, settings), only)
    found = [(cell, place := CellFolder.of(cell, folder), place.result()) for cell in cells]
    waiting = [(cell, place, result) for cell, place, result in found if result and "latency" not in result]
    _require_trust([cell for cell, _, _ in waiting], trust_code)
    unmeasured = {}
    with files.locked(folder):
        for number, (cell, place, result) in enumerate(waiting):
            on_progress("measuring latency", number, len(waiting))
            if not place.model.exists():  # it came from a table
                continue
            try:
                place.finish({**result, "latency": _latency(place.model, cell.config.candidates, trust_code)})
            except SmxError as error:
                unmeasured[cell.id] = one_line(error)
    return replace(_report(folder, cells), unmeasured=unmeasured)


def _latency(model: Path, candidates: tuple[str, ...], trust_code: bool) -> dict[str, dict[str, float]]:
    from smx.workflows.bench import bench

    if candidates == ("relu",):
        return {str(size): {"ratio": 1.0, "low": 1.0, "high": 1.0} for size in LATENCY_BATCHES}
    report = bench(model, layouts=("sorted",), baselines=("relu",), batch_sizes=LATENCY_BATCHES, trust_code=trust_code)
    return {
        str(row.batch_size): {"ratio": row.ratio, "low": row.ratio_low, "high": row.ratio_high}
        for row in report.results
        if row.name == "sorted"
    }


def _report(out: Path, cells: Iterable[Cell]) -> SweepReport:
    from smx.study.table import collect

    return SweepReport(out=out, frame=collect(out, cells))


def _all_cells(grid: GridLike, seeds: int | Sequence[int] | None, settings: Mapping[str, Any] | None) -> list[Cell]:
    found = read_grid(grid if isinstance(grid, Mapping) else os.fspath(grid))
    return found.with_values(None if seeds is None else listed(seeds), settings).cells()


def _selected(cells: Sequence[Cell], only: Only) -> list[Cell]:
    wanted: dict[str, list[Any]] = {}
    for name, given in _pairs(only):
        wanted.setdefault(name, []).extend(_spellings(name, value_of(name, given)))
    found = [cell for cell in cells if all(cell.value(name) in values for name, values in wanted.items())]
    if not found:
        asked = ", ".join(f"{name} = {as_text(value)}" for name, value in _pairs(only))
        raise InputError(f"no cell of the {len(cells)} is left by --only {asked}")
    return found


def _pairs(only: Only) -> Iterator[tuple[str, Any]]:
    """Yield each setting with one value; of a mapping, a list has several."""
    if not isinstance(only, Mapping):
        if isinstance(only, str) or not all(isinstance(pair, tuple | list) and len(pair) == 2 for pair in only):
            raise InputError(f"only must be pairs of a setting and a value, or a mapping, got {only!r}")
        yield from only
        return
    for name, values in only.items():
        several = isinstance(values, list | set | tuple) and name not in ("hidden", "pool")
        yield from ((name, value) for value in (values if several else [values]))


def _spellings(name: str, value: Any) -> list[Any]:
    """Return a value, and of an activation also the name that cells have: `leaky_relu` for `LeakyReLU`."""
    from smx import activations

    if name in (METHOD, "activation"):
        with suppress(ValueError):
            return [value, activations.get(value).name]
    return [value]


def _require_trust(cells: Iterable[Cell], trust_code: bool) -> None:
    own = sorted({cell.config.model for cell in cells if ":" in cell.config.model})
    if own and not trust_code:
        raise InputError(f"the grid names code of yours, {own[0]}; give --trust-code to run it")
