"""What `smx.bench`, `smx.bench_train` and `smx.tune` share."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import count
from typing import ParamSpec, TypeVar

from smx.errors import InputError
from smx.limits import BATCH, ROUNDS, THREADS
from smx.subprocesses import in_subprocess
from smx.timing.interleave import in_blocks
from smx.timing.intervals import MIN_ROUNDS
from smx.timing.limits import Limit
from smx.workflows import OnProgress

P = ParamSpec("P")
T = TypeVar("T")


def without_torch(function: Callable[P, T], *arguments: P.args, **options: P.kwargs) -> T:
    """Call a function here, or in a process of its own if torch is loaded here; there it reports no progress.

    The idle threads of torch slow down ONNX Runtime (its issue 13808).
    """
    if "torch" not in sys.modules:
        return function(*arguments, **options)
    options.pop("on_progress", None)
    return in_subprocess(function, *arguments, **options)


def with_torch(function: Callable[P, T], *arguments: P.args, **options: P.kwargs) -> T:
    """Call a function that loads torch here if that is loaded, or else in another process: this one may measure."""
    return (function if "torch" in sys.modules else partial(in_subprocess, function))(*arguments, **options)


def parse_limits(limits: Iterable[str], rounds: int) -> list[Limit]:
    """Read the stated limits, and check that the rounds are enough to judge them."""
    parsed = [Limit.parse(limit) for limit in limits]
    if parsed and rounds < MIN_ROUNDS:
        raise InputError(f"a limit needs at least {MIN_ROUNDS} rounds to be judged, got {rounds}")
    return parsed


def check_measurement(batch_sizes: Sequence[int], rounds: int, threads: int | None = None) -> None:
    """Refuse numbers that nothing can be measured with.

    Raises:
        InputError: there is no batch size; or one, the rounds or the threads are out of range.
    """
    if not batch_sizes or not all(isinstance(size, int) and 1 <= size <= BATCH for size in batch_sizes):
        raise InputError(f"batch sizes must be whole numbers from 1 to {BATCH}, one or more, got {list(batch_sizes)}")
    for name, number, most in (("rounds", rounds, ROUNDS), ("threads", threads, THREADS)):
        if number is not None and not 1 <= number <= most:
            raise InputError(f"{name} must be between 1 and {most}, got {number}")


def pick_reference(reference: str | None, names: Sequence[str], preferred: Iterable[str] = ()) -> str:
    """Return the candidate that ratios refer to: the one that is named, or else relu, a preferred or the first one."""
    if not names:
        raise InputError("there are no candidates: name at least one layout, baseline or ONNX file")
    found = reference or next(name for name in ("relu", *preferred, *names) if name in names)
    if found not in names:
        raise InputError(f"the reference {found!r} is not among the candidates {', '.join(names)}")
    return found


def by_round(on_progress: OnProgress, batch_sizes: Sequence[int], rounds: int) -> Callable[[int], None]:
    """Return what to call with the batch size before each round of a measurement."""
    done, total = count(), len(batch_sizes) * math.prod(in_blocks(rounds))
    return lambda batch_size: on_progress(f"measuring, batch {batch_size}", next(done), total)
