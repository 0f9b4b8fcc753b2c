"""Figures of runs and measurements, drawn with matplotlib.

matplotlib keeps its settings and a list of the fonts below HOME. Where it has not done so before, it gets a temporary
folder instead, which is removed when the process ends.
"""

from __future__ import annotations

import atexit
import os
import sys
from contextlib import ExitStack
from pathlib import Path

from smx.files import scratch


def _has_folder() -> bool:
    caches = (Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "matplotlib"), Path("~/.matplotlib"))
    try:
        return any(cache.expanduser().is_dir() for cache in caches)
    except RuntimeError:  # there is no HOME
        return False


if not ("matplotlib" in sys.modules or "MPLCONFIGDIR" in os.environ or _has_folder()):
    _folder = ExitStack()
    os.environ["MPLCONFIGDIR"] = str(_folder.enter_context(scratch()))
    atexit.register(_folder.close)
