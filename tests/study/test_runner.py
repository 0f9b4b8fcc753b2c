"""Cells in processes: one that fails or is killed stops no other one."""

from __future__ import annotations

import multiprocessing
import threading
import time
from pathlib import Path

import pytest

from smx.study.cell import CellFolder
from smx.study.grid import Cell, read_grid
from smx.study.runner import TRIES, in_processes
from tests.study.grids import with_grid


def kill_when(paths: list[Path], killed: list[Path]) -> None:
    """Kill the only child process when the first path appears, then when the second one does, and so on."""
    for path in paths:
        while not path.exists():
            time.sleep(0.01)
        for process in multiprocessing.active_children():
            process.kill()
            process.join()
        path.unlink()
        killed.append(path)


@pytest.mark.long
def test_a_killed_process_takes_no_other_cell_with_it(tmp_path: Path) -> None:
    """Killed once, a cell is begun again; killed twice, it failed. The others are trained in any case."""
    twice, once, never = cells = read_grid(with_grid(hidden=[[16]], phase2_epochs=[100, 101, 1])).cells()
    checkpoints = [CellFolder.of(cell, tmp_path).path / "checkpoint.pt" for cell in (twice, twice, once)]
    killed: list[Path] = []
    killer = threading.Thread(target=kill_when, args=(checkpoints, killed), daemon=True)
    killer.start()
    started: list[Cell] = []
    outcomes = dict(in_processes(cells, tmp_path, None, 1, started.append))
    assert killed == checkpoints
    assert started == cells == [*outcomes]
    assert TRIES == 2
    result, error = outcomes[twice]
    assert result is None
    assert "killed twice" in str(error)
    assert error == CellFolder.of(twice, tmp_path).error()
    for cell in (once, never):
        assert outcomes[cell] == (CellFolder.of(cell, tmp_path).result(), None)


@pytest.mark.long
def test_processes_end_when_the_sweep_is_given_up(tmp_path: Path) -> None:
    cells = read_grid(with_grid(hidden=[[16]], phase2_epochs=[1, 5000])).cells()
    outcomes = in_processes(cells, tmp_path, None, 2)
    assert next(outcomes)[0] == cells[0]
    assert multiprocessing.active_children()
    outcomes.close()  # type: ignore[attr-defined]
    assert not multiprocessing.active_children()
    assert CellFolder.of(cells[1], tmp_path).result() is None


def test_no_cells_start_no_process(tmp_path: Path) -> None:
    assert list(in_processes([], tmp_path, None, 2)) == []
