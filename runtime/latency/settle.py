"""Waiting until the threads of the candidate before have come to rest.

In ONNX Runtime 1.31 the idle threads of a session spin for about 40 ms after its last run, four times as long as a
burst lasts: with as many threads as cores they take the next candidate's cores away. Stopping them at the end of each
run (`session.force_spinning_stop`) would change what is measured, and a process for each candidate does not help, for
they spin there as well.
"""

from __future__ import annotations

import os
import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from smx.runtime.latency.runners import SessionRunner

WINDOW = 0.002
"""Seconds over which the process must be at rest."""
REST = 0.2
"""It is, when its threads together take less than this share of a core."""
LIMIT = 0.5
"""Seconds to wait at most."""


class Turn:
    """Who ran last, for candidates that are timed in turn."""

    last: object = None


def settle() -> None:
    """Sleep until no thread of this process takes time any more; what other processes do makes no difference."""
    deadline = time.perf_counter() + LIMIT
    while time.perf_counter() < deadline:
        used = time.process_time()
        time.sleep(WINDOW)
        if time.process_time() - used < REST * WINDOW:
            return


class SettledRunner(SessionRunner):
    """A file in ONNX Runtime that begins its bursts when the candidate before has come to rest.

    Args:
        path, options: see `SessionRunner`.
        turn: shared by all candidates.
    """

    def __init__(self, path: str | os.PathLike[str], *options: Any, turn: Turn, **more: Any) -> None:
        super().__init__(path, *options, **more)
        self._turn = turn

    def time(self, length: int) -> NDArray[np.float64]:
        """Wait, if another one ran last, then time runs one by one."""
        if self._turn.last is not self:
            settle()
            self._turn.last = self
        return super().time(length)
