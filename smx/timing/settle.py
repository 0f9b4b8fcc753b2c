"""Wait until the threads of the candidate before are idle.

In ONNX Runtime 1.31 the idle threads of a session spin for about 40 ms after its last run, four times as long as a
burst: with as many threads as cores they take the cores of the next candidate. Stopping them at the end of each run
(`session.force_spinning_stop`) would change the measured time; a process for each candidate does not help, because they
spin there as well.
"""

from __future__ import annotations

import time

WINDOW = 0.002
"""Seconds for which the process must be idle."""
REST = 0.2
"""The process is idle if its threads together take less than this share of a core."""
LIMIT = 0.5
"""Seconds to wait at most."""


def settle() -> None:
    """Sleep until all threads of this process are idle; other processes make no difference."""
    deadline = time.perf_counter() + LIMIT
    while time.perf_counter() < deadline:
        used = time.process_time()
        time.sleep(WINDOW)
        if time.process_time() - used < REST * WINDOW:
            return
