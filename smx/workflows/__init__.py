"""What each command does, as one call that returns a report. Calls that take only ONNX files need no torch."""

from collections.abc import Callable, Iterable
from numbers import Integral
from typing import TypeAlias, TypeVar

OnProgress: TypeAlias = Callable[[str, int, int], None]
"""Called with what is being done, the number of finished parts, and of all parts (0 where there are none to count)."""


T = TypeVar("T", int, str)


def listed(given: T | Iterable[T]) -> tuple[T, ...]:
    """Return values as a tuple; one alone, as in `baselines="relu"` or `batch_sizes=16`, is a tuple of one.

    Whole numbers of NumPy's become Python's, which JSON takes.
    """
    values = (given,) if isinstance(given, str | int | Integral) else tuple(given)
    return tuple(int(value) if isinstance(value, Integral) else value for value in values)


def silent(what: str, done: int, total: int) -> None:
    """Show no progress."""
