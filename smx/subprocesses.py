"""Calls in a process of their own: for what loads torch, whose threads disturb a measurement, or takes memory."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, nullcontext
from types import ModuleType
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
    with ProcessPoolExecutor(1, context, follow_parent) as process:
        try:
            with nullcontext() if function.__module__ == "__main__" else hidden_main():
                answer = process.submit(function, *arguments, **options)
            return answer.result()
        except BrokenProcessPool as error:
            raise SmxError(f"the process of {function.__name__} was killed; is there enough memory?") from error


def follow_parent() -> None:
    """Let this process end when the process that started it ends, however that ends, and leave Ctrl-C to that one."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches both processes
    parent = multiprocessing.parent_process()
    assert parent is not None, "only for a process that multiprocessing has started"

    def wait() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


@contextmanager
def hidden_main() -> Iterator[None]:
    """Let processes that are started here not run the caller's script, which Python else does to find its functions.

    Without this a script that calls smx would need `if __name__ == "__main__":` around its lines.
    """
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main
