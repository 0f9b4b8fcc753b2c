"""Training many cells side by side, in processes of this machine."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from smx import files
from smx.errors import SmxError, one_line, reason
from smx.study.cell import CellFolder, train_cell
from smx.study.grid import Cell
from smx.subprocesses import follow_parent, held_back, hidden_main, stop
from smx.timing.machine import cores

TRIES = 2
"""How often a cell is begun whose process is killed: the second time it continues from its checkpoint."""
Outcome = tuple[dict[str, Any] | None, str | None]
"""A cell's results, or why it failed."""


def train_here(cell: Cell, out: Path, data_dir: Path | None) -> Outcome:
    """Train a cell in its folder below `out`; keep there what came of it, and return that.

    A cell that is done is not trained again: its process may have been killed just after it had kept the result.
    """
    folder = CellFolder.of(cell, out)
    try:
        if (kept := folder.result()) is not None:
            return kept, None
        result = train_cell(cell, files.make_folder(folder.path), data_dir)
        folder.finish(result)
    except Exception as error:
        said = one_line(error) if isinstance(error, SmxError) else reason(error)
        with suppress(SmxError):  # as a full disk
            folder.fail(said)
        return None, said
    return result, None


def in_processes(
    cells: Sequence[Cell],
    out: Path,
    data_dir: Path | None,
    jobs: int,
    on_start: Callable[[Cell], None] = lambda cell: None,
) -> Iterator[tuple[Cell, Outcome]]:
    """Train cells in `jobs` processes, which divide the cores among them; yield each cell with its outcome.

    A process that is killed, for example for its memory, takes no other one with it. The processes end when the
    generator is closed, or when this process ends, however that ends.
    """
    waiting = iter(cells)
    slots = [_Slot(max(1, (cores() or 1) // jobs)) for _ in range(min(jobs, len(cells)))]
    try:
        running: dict[Future[Outcome], tuple[_Slot, Cell]] = {}
        for slot in slots:
            _next(slot, waiting, running, out, data_dir, on_start)
        while running:
            finished, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in finished:
                slot, cell = running.pop(future)
                outcome = _outcome(future)
                if outcome is None:
                    slot.renew()
                    slot.tries += 1
                    if slot.tries < TRIES:
                        running[slot.submit(cell, out, data_dir)] = slot, cell
                        continue
                    outcome = None, "its process was killed twice; is there enough memory?"
                    CellFolder.of(cell, out).fail(str(outcome[1]))
                yield cell, outcome
                _next(slot, waiting, running, out, data_dir, on_start)
    finally:
        for slot in slots:
            slot.kill()


def _next(
    slot: _Slot,
    waiting: Iterator[Cell],
    running: dict[Future[Outcome], tuple[_Slot, Cell]],
    out: Path,
    data_dir: Path | None,
    on_start: Callable[[Cell], None],
) -> None:
    """Give a slot the next cell, if there is one."""
    for cell in waiting:
        slot.tries = 0
        on_start(cell)
        running[slot.submit(cell, out, data_dir)] = slot, cell
        return


def _outcome(future: Future[Outcome]) -> Outcome | None:
    """Return what came of a cell; None if its process was killed."""
    try:
        return future.result()
    except BrokenProcessPool:
        return None


@dataclass
class _Slot:
    """A process that trains one cell after the other, so that its libraries and data are loaded once."""

    threads: int
    tries: int = 0
    pool: ProcessPoolExecutor = field(init=False)

    def __post_init__(self) -> None:
        self.renew()

    def renew(self) -> None:
        """Start a new process at the next call."""
        self.pool = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), _begin, (self.threads,))

    def submit(self, cell: Cell, out: Path, data_dir: Path | None) -> Future[Outcome]:
        with hidden_main(), held_back():
            try:
                return self.pool.submit(train_here, cell, out, data_dir)
            except BrokenProcessPool:  # it was killed while it waited for this cell
                self.renew()
                return self.pool.submit(train_here, cell, out, data_dir)

    def kill(self) -> None:
        """End the process, also in the middle of a cell: its checkpoint stays."""
        stop(self.pool)


def _begin(threads: int) -> None:
    follow_parent()
    import torch

    from smx.training.denormals import flush_other_threads

    torch.set_num_threads(threads)
    flush_other_threads()
