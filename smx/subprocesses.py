"""Calls in a process of their own: for what loads torch, whose threads disturb a measurement, or takes memory."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import ParamSpec, TypeVar

from smx.errors import SmxError

P = ParamSpec("P")
T = TypeVar("T")


def in_subprocess(function: Callable[P, T], *arguments: P.args, **options: P.kwargs) -> T:
    """Call a function of a module, with plain arguments, in a process of its own, and return what it returns.

    Raises:
        SmxError: the process was killed; and whatever the function raises.
    """
    context = multiprocessing.get_context("spawn")
    # Ctrl-C reaches both processes; this one answers it.
    with ProcessPoolExecutor(1, context, signal.signal, (signal.SIGINT, signal.SIG_IGN)) as process:
        try:
            return process.submit(function, *arguments, **options).result()
        except BrokenProcessPool as error:
            raise SmxError(f"the process of {function.__name__} was killed; is there enough memory?") from error
