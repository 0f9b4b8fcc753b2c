"""What each command does, as one call that returns a report. Calls that take only ONNX files need no torch."""

from collections.abc import Callable
from typing import TypeAlias

OnProgress: TypeAlias = Callable[[str, int, int], None]
"""Called with what is being done, the number of finished parts, and of all parts (0 where there are none to count)."""


def silent(what: str, done: int, total: int) -> None:
    """Show no progress."""
