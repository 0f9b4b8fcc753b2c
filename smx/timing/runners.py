"""Runners: how a candidate is loaded and timed, in this process or in one of its own."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from smx.errors import SmxError, reason
from smx.subprocesses import follow_parent, held_back, hidden_main
from smx.timing.settle import settle

Array = NDArray[Any]


class Runner(Protocol):
    """A candidate that can be timed."""

    def start(self) -> float | None:
        """Load the model, and return the seconds it took; None if it stayed loaded."""

    def prepare(self, inputs: Sequence[Array]) -> None:
        """Take the inputs of the next runs, one array (B, *) for each argument."""

    def time(self, length: int) -> NDArray[np.float64]:
        """Run once untimed, to fill the caches, then `length` times; return microseconds (length,)."""

    def stop(self) -> None:
        """Release the model."""


def time_runs(run: Callable[[], object], length: int) -> NDArray[np.float64]:
    """Run once untimed, then time `length` runs one by one; return microseconds (length,)."""
    run()
    times = np.empty(length)
    for i in range(length):
        started = time.perf_counter_ns()
        run()
        times[i] = time.perf_counter_ns() - started
    return times / 1e3


R = TypeVar("R", bound=Runner)


@contextmanager
def stopping(runners: Mapping[str, R]) -> Iterator[Mapping[str, R]]:
    """Yield runners, and stop them all at the end, however it comes."""
    try:
        yield runners
    finally:
        for runner in runners.values():
            runner.stop()


class LocalRunner:
    """A runner in this process: `load` makes the model, and `bind` returns what one run does with the inputs."""

    model: Any = None

    def load(self) -> Any:
        """Return the model."""
        raise NotImplementedError

    def bind(self, inputs: Sequence[Array]) -> Callable[[], object]:
        """Return a function that runs the model on the inputs, and ends when the device has finished."""
        raise NotImplementedError

    def start(self) -> float | None:
        """Load the model anew; return the seconds it took."""
        self.stop()
        started = time.perf_counter()
        self.model = self.load()
        return time.perf_counter() - started

    def prepare(self, inputs: Sequence[Array]) -> None:
        """Check the inputs, and copy them to the device."""
        self._run = self.bind(inputs)

    def time(self, length: int) -> NDArray[np.float64]:
        """Time runs one by one; microseconds (length,)."""
        return time_runs(self._run, length)

    def stop(self) -> None:
        """Release the model."""
        self.model, self._run = None, lambda: None


class ProcessRunner:
    """A runner in a process of its own, for a framework whose threads would disturb another's.

    Between its turns the process waits for a message and uses no CPU time.

    Args:
        make: makes the runner in that process; must be picklable.
    """

    def __init__(self, make: Callable[[], Runner]) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, other = context.Pipe()
        self._process = context.Process(target=_serve, args=(make, other), daemon=True)
        with hidden_main(), held_back():
            self._process.start()
        other.close()

    def start(self) -> float | None:
        """Load the model in the process."""
        return self._ask("start")  # type: ignore[no-any-return]

    def prepare(self, inputs: Sequence[Array]) -> None:
        """Send the inputs to the process."""
        self._ask("prepare", list(inputs))

    def time(self, length: int) -> NDArray[np.float64]:
        """Time runs in the process, by its clock."""
        return self._ask("time", length)  # type: ignore[no-any-return]

    def stop(self) -> None:
        """End the process."""
        with suppress(OSError):
            self._pipe.close()
        self._process.join(5)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()

    def _ask(self, method: str, *arguments: Any) -> Any:
        try:
            self._pipe.send((method, arguments))
            answer = self._pipe.recv()
        except (EOFError, OSError) as error:
            raise SmxError("a process that runs a candidate was killed; is there enough memory?") from error
        if isinstance(answer, Exception):
            raise answer
        return answer


def _serve(make: Callable[[], Runner], pipe: Any) -> None:
    """Call the methods that are asked for, until the other process closes the pipe."""
    follow_parent()
    runner: Runner | None = None
    with suppress(EOFError, OSError):
        while True:
            method, arguments = pipe.recv()
            try:
                runner = runner or make()
                answer = getattr(runner, method)(*arguments)
                settle()  # before the next candidate's turn
            except SmxError as error:
                answer = error
            except Exception as error:
                answer = SmxError(reason(error))
            pipe.send(answer)
