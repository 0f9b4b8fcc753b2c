"""What a model costs besides time: bytes on disk and memory."""

from __future__ import annotations

import glob
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from smx.errors import InputError, SmxError
from smx.runtime.session import Session
from smx.runtime.settings import Settings
from smx.subprocesses import in_subprocess


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

    Measured in a new process, since memory that was once taken stays counted. None where the system does not tell, or
    kills the process.
    """
    try:
        return in_subprocess(_measure, path, list(inputs), provider, settings, allow_fallback)
    except SmxError as error:
        if isinstance(error, InputError):
            raise
        return None


def _measure(
    path: str | os.PathLike[str],
    inputs: list[NDArray[Any]],
    provider: str,
    settings: Settings | None,
    allow_fallback: bool,
) -> int | None:
    before = _peak()
    session = Session(path, provider, settings=settings or Settings(), allow_fallback=allow_fallback)
    for _ in range(3):
        session.run_all(*inputs)
    peak = _peak()
    return None if before is None or peak is None else peak - before


def _peak() -> int | None:
    """Return the most memory, in bytes, that this process ever had."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return _high_water()
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM:")), None)


def _high_water() -> int | None:
    """Return the same where there is no /proc."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak
