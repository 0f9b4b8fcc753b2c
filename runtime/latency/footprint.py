"""What a model costs besides the time of a run: bytes on disk, time to load, memory."""

from __future__ import annotations

import glob
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from smx.errors import InputError, SmxError
from smx.runtime.session import Session
from smx.runtime.settings import Settings
from smx.subprocesses import in_subprocess


@dataclass(frozen=True, kw_only=True)
class Footprint:
    """What a candidate costs besides the time of a run; None for what was not measured.

    Attributes:
        name: of the candidate.
        bytes: size of the file, with external data.
        start: milliseconds to create a session; median over the blocks.
        peak_memory: bytes that a process needs at most to load the model and run the largest batch, beyond its
            libraries.
    """

    name: str
    bytes: int | None
    start: float | None
    peak_memory: int | None


def model_bytes(path: str | os.PathLike[str]) -> int:
    """Return the size of a model's file, with its external data."""
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
    """Return the bytes that a process needs at most to load a model and run it, beyond its libraries.

    A new process measures it, because a system's peak never decreases. None if the system does not report a peak or
    kills the process.

    Args:
        path: of the model.
        inputs: of the run, one array (B, *) for each argument.
        provider, settings, allow_fallback: see `Session`.

    Raises:
        InputError: the model can't be loaded or run.
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
    """Return the peak memory of this process in bytes."""
    with suppress(OSError):  # a system without /proc
        lines = Path("/proc/self/status").read_text().splitlines()
        return next((1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM:")), None)
    try:
        import resource
    except ImportError:  # Windows
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
