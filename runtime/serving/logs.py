"""The server's log: one JSON object a line, on standard error.

1. Lines are ASCII without control characters, so that no text of a client is more than text on a terminal.
2. A line has at most `MAX_LINE` bytes.
3. What can't be written at once is lost, and counted: the server waits for no reader of its log.
"""

from __future__ import annotations

import itertools
import json
import logging
import os
import re
import secrets
import select
import sys
from datetime import UTC, datetime
from typing import Any

MAX_LINE = 4000
"""Below the 4096 bytes that Linux writes to a pipe at once or, if there is no room, not at all."""
MAX_TEXT = 500
ID = re.compile(r"[\w.:/+=-]{1,128}", re.ASCII)
_lost = 0


class Ids:
    """Names requests, in the log and in answers: as the client does, if that is a short word, or else by a number."""

    def __init__(self) -> None:
        self._unique, self._count = secrets.token_hex(4), itertools.count(1)

    def of(self, given: str) -> str:
        """Return the id of a request; `given` is what the client sent, or nothing."""
        return given if ID.fullmatch(given) else f"{self._unique}{next(self._count):08x}"


def log(event: str, **fields: Any) -> None:
    """Write an event with its time; fields that are None are left out."""
    global _lost
    known = {key: _cut(value) for key, value in fields.items() if value is not None}
    if _lost:
        known["lines_lost"] = _lost
    written = _write(_line({"time": _now(), "event": event, **known}))
    _lost = 0 if written else _lost + 1


class Handler(logging.Handler):
    """Brings what libraries log into the same form, without tracebacks."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record."""
        error = record.exc_info[1] if record.exc_info else None
        reason = f"{type(error).__name__}: {error}" if error is not None else None
        log("library", name=record.name, level=record.levelname.lower(), message=record.getMessage(), error=reason)


def log_libraries() -> None:
    """Let the warnings and errors of libraries come into this log.

    Some write to the numbers of the standard files by themselves: where one is closed, that must not be a connection.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free: this one
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)  # its warnings are of requests that are refused
    root = logging.getLogger()
    if not any(isinstance(each, Handler) for each in root.handlers):
        root.addHandler(Handler(logging.WARNING))


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _cut(value: Any) -> Any:
    return value[:MAX_TEXT] + "..." if isinstance(value, str) and len(value) > MAX_TEXT else value


def _line(content: dict[str, Any]) -> bytes:
    text = json.dumps(content, default=str).replace("\x7f", "\\u007f")
    if len(text) >= MAX_LINE:
        kept = {key: content[key] for key in ("time", "event", "id") if key in content}
        text = json.dumps({**kept, "cut": text[: MAX_LINE // 4]}, default=str)
    return text.encode() + b"\n"


def _write(line: bytes) -> bool:
    """Write a line if that is possible without waiting."""
    try:
        if sys.stderr is None:  # it was closed when this process began
            return False
        try:
            number = sys.stderr.fileno()
        except (OSError, ValueError):  # not the system's: a test's, or a notebook's
            sys.stderr.write(line.decode())
            return True
        _, ready, _ = select.select([], [number], [], 0)
        return bool(ready) and os.write(number, line) == len(line)
    except (OSError, ValueError):  # full, or closed
        return False
