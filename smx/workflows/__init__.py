"""What each command does, as one call that returns a report. Calls that take only ONNX files need no torch."""

from collections.abc import Callable, Iterable
from typing import TypeAlias, TypeVar

OnProgress: TypeAlias = Callable[[str, int, int], None]
"""Called with what is being done, the number of finished parts, and of all parts (0 where there are none to count)."""


T = TypeVar("T", int, str)


def listed(given: T | Iterable[T]) -> tuple[T, ...]:
    """Return values as a tuple; one alone, as in `baselines="relu"` or `batch_sizes=16`, is a tuple of one."""
    return (given,) if isinstance(given, int | str) else tuple(given)


def silent(what: str, done: int, total: int) -> None:
    """Show no progress."""
