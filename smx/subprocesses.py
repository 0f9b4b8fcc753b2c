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
from contextlib import contextmanager, nullcontext, suppress
from multiprocessing.resource_tracker import ensure_running
from types import ModuleType
from typing import ParamSpec, TypeVar

from smx.ending import clean_up, end_on_signals, end_processes
from smx.errors import SmxError

P = ParamSpec("P")
T = TypeVar("T")


def in_subprocess(function: Callable[P, T], *arguments: P.args, **options: P.kwargs) -> T:
    """Call a function of a module, with plain arguments, in a process of its own, and return what it returns.

    Raises:
        SmxError: the process was killed; and whatever the function raises.
    """
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), follow_parent) as pool:
        try:
            with nullcontext() if function.__module__ == "__main__" else hidden_main(), held_back():
                answer = pool.submit(function, *arguments, **options)
            return answer.result()
        except BrokenProcessPool as error:
            raise SmxError(f"the process of {function.__name__} was killed; is there enough memory?") from error
        except KeyboardInterrupt:
            stop(pool)
            raise


def stop(pool: ProcessPoolExecutor) -> None:
    """End the processes of a pool, also in the middle of a call."""
    end_processes(list((pool._processes or {}).values()))  # executors have terminate_workers from Python 3.14 on
    pool.shutdown(wait=True, cancel_futures=True)


def follow_parent() -> None:
    """Let this process end when the process that started it ends, however that ends, and leave Ctrl-C to that one."""
    parent = multiprocessing.parent_process()
    assert parent is not None, "only for a process that multiprocessing has started"
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches both processes
    end_on_signals(quietly=True)
    if sys.platform != "win32":
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})  # see held_back

    def wait() -> None:
        parent.join()
        with suppress(Exception):
            clean_up()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


@contextmanager
def held_back() -> Iterator[None]:
    """Hold Ctrl-C back where a process is started, which begins so too, and then ignores it."""
    if sys.platform == "win32":
        yield
        return
    ensure_running()  # multiprocessing's helper, whose start would let Ctrl-C through again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


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
