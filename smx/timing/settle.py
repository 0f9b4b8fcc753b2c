"""Waiting until the threads of the candidate before have come to rest.

In ONNX Runtime 1.31 the idle threads of a session spin for about 40 ms after its last run, four times as long as a
burst lasts: with as many threads as cores they take the next candidate's cores away. Stopping them at the end of each
run (`session.force_spinning_stop`) would change what is measured, and a process for each candidate does not help, for
they spin there as well.
"""

from __future__ import annotations

import time

WINDOW = 0.002
"""Seconds over which the process must be at rest."""
REST = 0.2
"""It is, when its threads together take less than this share of a core."""
LIMIT = 0.5
"""Seconds to wait at most."""


def settle() -> None:
    """Sleep until no thread of this process takes time any more; what other processes do makes no difference."""
    deadline = time.perf_counter() + LIMIT
    while time.perf_counter() < deadline:
        used = time.process_time()
        time.sleep(WINDOW)
        if time.process_time() - used < REST * WINDOW:
            return
