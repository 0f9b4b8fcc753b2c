"""The errors a user can meet, each with the exit code it ends a command with. Standard library only."""

from __future__ import annotations

import re
from pathlib import Path

LONGEST = 1000
"""Characters of a message, which may quote a file of any length, or an error of a library that does."""


class SmxError(Exception):
    """Something failed on the way; the message is one line for the user. Exit code 1."""

    exit_code = 1

    def __init__(self, message: str = "") -> None:
        half = LONGEST // 2
        super().__init__(message if len(message) <= LONGEST else f"{message[:half]} ... {message[-half:]}")


class InputError(SmxError, ValueError):
    """What the user gave is wrong: the message says what was expected, what came and what to do. Exit code 2."""

    exit_code = 2


class ParityError(SmxError):
    """Two implementations of one function disagree beyond the stated tolerance. Exit code 3."""

    exit_code = 3


def no_file(path: Path) -> str:
    """Say what a path is that is not one of a file: of something else, or of nothing."""
    return f"{path} is no file" if path.exists() else f"{path} does not exist"


ADDRESS = re.compile(r" at 0x[0-9A-Fa-f]+(?=>)")
"""What Python's text of an object ends with, which tells a user nothing."""

STACK = re.compile(r"\s*(Exception raised from|C\+\+ CapturedTraceback|frame #\d+:).*", re.DOTALL)
"""Where the stack of a C++ program begins in the text of its error."""


def one_line(error: object) -> str:
    """Return an error's text, or that of a name, on one line; its type's name if it has none.

    Left away are a C++ stack, and where objects are in memory.
    """
    return " ".join(ADDRESS.sub("", STACK.sub("", str(error))).split()) or type(error).__name__


def reason(error: BaseException) -> str:
    """Return an error's type and text on one line, as of code of others."""
    return f"{type(error).__name__}: {one_line(error)}"
