"""How a signal ends a process: at once, with one line and its exit code. Standard library only.

Python's own way, a KeyboardInterrupt, is raised wherever the program happens to be: within an import it leaves half a
module, within a callback of C++ it ends in abort(), within `except:` it is lost, and a long call of C++ holds it back.
Here a thread waits for the signal instead, and ends the process, while the main thread goes no further.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from multiprocessing.process import BaseProcess

WORDS = {
    number: word
    for name, word in (("SIGINT", "Interrupted"), ("SIGTERM", "Terminated"), ("SIGHUP", "Hung up"))
    if (number := getattr(signal, name, None)) is not None  # Windows has no SIGHUP
}
"""What ends a process, and what is said then."""
MOMENT = 0.5
PATIENCE = 1.5
"""Seconds: for children, and for everything, to clean up; then the process ends without that."""
SHOW_CURSOR = b"\x1b[?25h\n"
"""For terminals: a progress bar hides the cursor, and leaves it within a line."""

_undos: list[Callable[[], object]] = []
_how: list[Callable[[], str]] = [lambda: ""]


@contextmanager
def eventually(undo: Callable[[], object]) -> Iterator[None]:
    """Call `undo` at the end of the block, or where a signal ends the process before that."""
    _undos.append(undo)
    try:
        yield
    finally:
        _undos.remove(undo)
        undo()


def say_how_to_go_on(how: Callable[[], str]) -> None:
    """Let the line that a signal ends this process with go on so from here on, unless the text is empty."""
    _how.append(how)


def end_on_signals(*, quietly: bool = False) -> None:
    """Let SIGINT, SIGTERM and SIGHUP end this process with the exit code 128 + the signal's number: 130 after Ctrl-C.

    The main thread calls this before all else. A signal that is ignored, as in the background of a shell, stays so.

    Args:
        quietly: say nothing, as a process whose parent speaks.
    """
    if sys.platform == "win32":  # where signals wake no pipe
        return
    signal.pthread_sigmask(signal.SIG_BLOCK, WORDS)  # a signal waits until everything stands
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)  # C writes to it, whatever Python is doing

    def park(number: int, frame: object) -> None:
        """Hold the main thread, so that it neither ends first nor complains of children that were ended."""
        time.sleep(PATIENCE)
        _leave(number, quietly)

    def wait() -> None:
        while (number := os.read(reading, 1)[0]) not in WORDS:
            pass
        threading.excepthook = lambda failed: None  # other threads lose what is cleaned up, and would complain
        with suppress(Exception):
            clean_up()
        _leave(number, quietly)

    def forget() -> None:
        """In a process that is forked off, whose signals would come out of the same pipe."""
        signal.set_wakeup_fd(-1)
        for number, handler in before.items():
            signal.signal(number, handler)

    threading.Thread(target=wait, name="signals", daemon=True).start()
    before = {number: handler for number in WORDS if (handler := signal.getsignal(number)) is not signal.SIG_IGN}
    for number in before:
        signal.signal(number, park)
    os.register_at_fork(after_in_child=forget)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, WORDS)


def clean_up() -> None:
    """End the processes that this one has started, then undo what would be left: temporary files and folders."""
    if multiprocessing := sys.modules.get("multiprocessing"):
        end_processes(multiprocessing.active_children())
    if util := sys.modules.get("multiprocessing.util"):
        util._run_finalizers()  # or else multiprocessing's helper complains of semaphores
    for undo in reversed(_undos.copy()):
        with suppress(OSError):
            undo()


def end_processes(processes: Sequence[BaseProcess]) -> None:
    """End processes of this program; each has a moment to clean up."""
    for process in processes:
        process.terminate()
    until = time.monotonic() + MOMENT
    for process in processes:
        process.join(max(0.0, until - time.monotonic()))
        process.kill()


def _leave(number: int, quietly: bool) -> None:
    if not quietly and (text := line(number)):
        with suppress(OSError):
            os.write(2, (SHOW_CURSOR if os.isatty(2) else b"") + text.encode() + b"\n")
    os._exit(128 + number)


def is_secondary() -> bool:
    """Tell whether torchrun started this process as another one than the main one, which alone writes and speaks."""
    return in_ranks() and os.environ["RANK"] != "0"


def in_ranks() -> bool:
    """Tell whether torchrun started several processes, and this is one of them."""
    return "RANK" in os.environ and os.environ.get("WORLD_SIZE", "1") != "1"


def line(number: int) -> str:
    """Return what is said when a signal ends this process; nothing in ranks other than the main one of torchrun."""
    if is_secondary():
        return ""
    more = ""
    with suppress(Exception):
        more = _how[-1]()
    return WORDS[signal.Signals(number)] + (f"; {more}" if more else ".")
