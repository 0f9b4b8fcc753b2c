"""Measurements away from torch, whose idle threads slow down ONNX Runtime (its issue 13808)."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from smx.subprocesses import in_subprocess

P = ParamSpec("P")
T = TypeVar("T")


def without_torch(function: Callable[P, T], *arguments: P.args, **options: P.kwargs) -> T:
    """Call a function here, or in a process of its own if torch is loaded here; there it reports no progress."""
    if "torch" not in sys.modules:
        return function(*arguments, **options)
    options.pop("on_progress", None)
    return in_subprocess(function, *arguments, **options)
