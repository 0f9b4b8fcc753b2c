"""Training many cells as tasks of a Ray cluster: an existing one, or one that is started on this machine."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from smx import files
from smx.errors import SmxError, one_line
from smx.study.cell import CellFolder
from smx.study.grid import Cell
from smx.study.listing import CELLS
from smx.study.runner import Outcome, train_here

LOCAL = "local"
RETRIES = 3
"""How often Ray begins a task again whose process or machine is lost."""


def on_ray(
    cells: Sequence[Cell],
    out: Path,
    data_dir: Path | None,
    address: str,
    jobs: int,
    on_start: Callable[[Cell], None] = lambda cell: None,
) -> Iterator[tuple[Cell, Outcome]]:
    """Train cells as Ray tasks of one core each; yield each cell with its outcome.

    Where a worker sees the folder `out` of this process, as on this machine or a shared disk, it trains there, and a
    task that is begun again continues from its checkpoint. Elsewhere it trains in a folder of its own, and this process
    writes what came of it into `out`. smx and the data must be on every machine.

    Args:
        cells, out, data_dir, on_start: see `smx.study.runner.in_processes`.
        address: of a cluster, as `ray.init` takes it; `local` starts one here with `jobs` workers.
        jobs: workers of a local cluster.

    Raises:
        SmxError: there is no cluster at the address.
    """
    if not cells:
        return
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # else it sends them to its maker
    import ray

    options: dict[str, Any] = {"address": address} | ({"num_cpus": jobs} if address == LOCAL else {})
    try:
        ray.init(
            **options,
            include_dashboard=False,
            dashboard_host="127.0.0.1",
            logging_level=logging.ERROR,
            log_to_driver=False,
        )
    except (ConnectionError, RuntimeError, ValueError, TimeoutError) as error:
        raise SmxError(f"there is no Ray cluster at {address} ({one_line(error)[:200]})") from error
    try:
        yield from _train(ray, cells, out.absolute(), data_dir and data_dir.absolute(), on_start)
    finally:
        ray.shutdown()


def _train(
    ray: Any, cells: Sequence[Cell], out: Path, data_dir: Path | None, on_start: Callable[[Cell], None]
) -> Iterator[tuple[Cell, Outcome]]:
    resources = ray.cluster_resources()
    task = ray.remote(num_cpus=1, max_retries=RETRIES)(_task)
    listed = (out / CELLS).read_bytes()
    waiting, running = iter(cells), {}

    def begin() -> None:
        for cell in waiting:
            gpus = 1 if cell.config.device != "cpu" and resources.get("GPU") else 0
            on_start(cell)
            running[task.options(num_gpus=gpus).remote(cell, out, listed, data_dir, Path.cwd())] = cell
            return

    for _ in range(max(1, int(resources.get("CPU", 1)))):
        begin()
    while running:
        (ended, *_), _ = ray.wait(list(running))
        cell = running.pop(ended)
        yield cell, _outcome(ray, ended, CellFolder.of(cell, out))
        begin()


def _outcome(ray: Any, ended: Any, folder: CellFolder) -> Outcome:
    try:
        result, error, model = ray.get(ended)
    except ray.exceptions.RayError as lost:
        result, error, model = None, f"Ray: {one_line(lost).splitlines()[0][:500]}", None
    if model is not None:  # it was trained elsewhere
        files.make_folder(folder.path)
        files.write_bytes(folder.model, model)
    if result is not None and folder.result() is None:
        folder.finish(result)
    if error is not None:
        folder.fail(error)
    return result, error


def _task(
    cell: Cell, out: Path, listed: bytes, data_dir: Path | None, here: Path
) -> tuple[dict[str, Any] | None, str | None, bytes | None]:
    """Train a cell in a worker; return its results, or why it failed, and its model if it was trained elsewhere.

    Paths of a cell's settings are relative to `here`, the caller's folder, where the worker sees that.
    """
    import torch

    torch.set_num_threads(1)
    if here.is_dir():
        os.chdir(here)
    if (out / CELLS).is_file() and (out / CELLS).read_bytes() == listed:
        return (*train_here(cell, out, data_dir), None)
    with files.scratch() as folder:
        result, error = train_here(cell, folder, data_dir)
        model = CellFolder.of(cell, folder).model
        return result, error, model.read_bytes() if result is not None else None
