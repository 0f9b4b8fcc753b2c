"""What a model costs besides time: bytes on disk and memory."""

from __future__ import annotations

import glob
import multiprocessing
import os
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from smx.errors import SmxError
from smx.runtime.session import Session
from smx.runtime.settings import Settings


def model_bytes(path: str | os.PathLike[str]) -> int:
    """Return the size of a model's file, with the weights that lie beside it."""
    file = Path(path)
    beside = list(file.parent.glob(f"{glob.escape(file.name)}[._]*data"))
    content = file.read_bytes() if beside else b""
    return sum(part.stat().st_size for part in (file, *(part for part in beside if part.name.encode() in content)))


def peak_memory(
    path: str | os.PathLike[str],
    inputs: Sequence[NDArray[Any]],
    *,
    provider: str = "cpu",
    settings: Settings | None = None,
    allow_fallback: bool = False,
) -> int | None:
    """Return how many bytes a process takes at most, beyond its libraries, to load a model and run it.

    Measured in a new process, since memory that was once taken stays counted. None where the system does not tell.

    Raises:
        SmxError: the process was killed.
    """
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, context) as other:
        try:
            return other.submit(_measure, path, list(inputs), provider, settings, allow_fallback).result()
        except BrokenProcessPool as error:
            raise SmxError(f"the process that runs {path} was killed; is there enough memory?") from error


def _measure(
    path: str | os.PathLike[str],
    inputs: list[NDArray[Any]],
    provider: str,
    settings: Settings | None,
    allow_fallback: bool,
) -> int | None:
    before = _memory("VmRSS")
    session = Session(path, provider, settings=settings or Settings(), allow_fallback=allow_fallback)
    for _ in range(3):
        session.run_all(*inputs)
    peak = _memory("VmHWM")
    return None if before is None or peak is None else max(0, peak - before)


def _memory(entry: str) -> int | None:
    """Return resident memory, now or at its highest, in bytes."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return _high_water()
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith(f"{entry}:")), None)


def _high_water() -> int | None:
    """Return the most that the process ever took: where there is no /proc, before and after is the best there is."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak
