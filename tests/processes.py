"""Processes that tests start, and send signals to."""

from __future__ import annotations

import signal
from pathlib import Path


def heed_interrupts() -> None:
    """In a new process, heed SIGINT, which a shell lets everything that it starts in the background ignore."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def running(session: int) -> list[str]:
    """Return the processes of a session that have not ended."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:  # it ended meanwhile
            continue
        if int(fields[3]) == session and fields[0] not in "ZX":
            found.append(stat.parent.name)
    return found
