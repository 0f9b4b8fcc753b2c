"""Figures of runs and measurements, drawn with matplotlib.

matplotlib keeps its settings and a list of the fonts below HOME. Where it has not done so before, it gets a temporary
folder instead, which is removed when the process ends.
"""

from __future__ import annotations

import atexit
import os
import shutil
import sys
import tempfile
from pathlib import Path


def _has_folder() -> bool:
    caches = (Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "matplotlib"), Path("~/.matplotlib"))
    try:
        return any(cache.expanduser().is_dir() for cache in caches)
    except RuntimeError:  # there is no HOME
        return False


if not ("matplotlib" in sys.modules or "MPLCONFIGDIR" in os.environ or _has_folder()):
    os.environ["MPLCONFIGDIR"] = tempfile.mkdtemp(prefix="smx-matplotlib-")
    atexit.register(shutil.rmtree, os.environ["MPLCONFIGDIR"], ignore_errors=True)
