"""How results leave a command: tables for people, JSON, and notes."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from smx import files

STDOUT = "-"
PLAIN: dict[str, Any] = {"highlight": False, "markup": False, "emoji": False}  # names and paths are users' own


HIDDEN = re.compile(r"[\0-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""Characters that change how a terminal shows others, and halves of characters: bytes of names that are not UTF-8."""


def plain(text: str) -> str:
    r"""Return a text that can be printed: what would command the terminal stands as in Python, `\x1b`."""
    return HIDDEN.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


class People(Console):
    """Where people read. Names of files, classes and layers come from others: they are printed as `plain` text."""

    def print(self, *objects: Any, **options: Any) -> None:
        """Print texts, and what rich can show."""
        super().print(*(plain(each) if isinstance(each, str) else each for each in objects), **options)


def console(json_path: str | None) -> Console:
    """Return where people read: standard output, unless JSON goes there."""
    stderr = json_path == STDOUT
    people = People(stderr=stderr, **PLAIN)
    return people if people.is_terminal else People(stderr=stderr, width=140, **PLAIN)


def logs() -> Console:
    """Return where progress and notes go: standard error."""
    return People(stderr=True, **PLAIN)


class UntilClosed:
    """A stream that a reader may close, as `head` does: the command then goes on in silence to its own exit code.

    So does one whose messages can't be written, since nobody could be told.
    """

    def __init__(self, stream: Any, *, messages: bool = False) -> None:
        self._stream = stream
        self._ends = OSError if messages else BrokenPipeError

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write, unless nobody reads."""
        with self._silenced():
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Flush, unless nobody reads."""
        with self._silenced():
            self._stream.flush()

    @contextmanager
    def _silenced(self) -> Iterator[None]:
        try:
            yield
        except self._ends:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())  # what is still in buffers goes there
            os.close(nowhere)


def write_json(json_path: str | None, content: Any) -> Console:
    """Write JSON to a file, to standard output for `-`, or nowhere for None; return where people then read.

    Numbers that are not finite become null; bytes of file names that are not UTF-8 become `\\udc..`.
    """
    if json_path is not None:
        text = json.dumps(_writable(content), indent=2, ensure_ascii=False, allow_nan=False)
        if json_path == STDOUT:
            click.echo(text)
        else:
            files.write_text(json_path, text + "\n")
    return console(json_path)


def _writable(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, str):
        return value.encode(errors="backslashreplace").decode()
    if isinstance(value, dict):
        return {_writable(key): _writable(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_writable(entry) for entry in value]
    return value


def table(
    headings: Sequence[str], rows: Iterable[Sequence[str]], *, section: int | None = None, **options: Any
) -> Table:
    """Make a table.

    Args:
        headings: of the columns; one that begins with `>` is above numbers, which stand to the right.
        rows: a cell for each column.
        section: a line is drawn wherever the value in this column changes.
        options: of `rich.table.Table`.
    """
    for name in {"title", "caption"} & options.keys():
        options[name] = plain(options[name] or "") or None
    made = Table(**options)
    for heading in headings:
        right = heading.startswith(">")
        made.add_column(plain(heading.removeprefix(">")), justify="right" if right else "left", overflow="fold")
    before: Sequence[str] | None = None
    for row in rows:
        if section is not None and before and before[section] != row[section]:
            made.add_section()
        made.add_row(*map(plain, row))
        before = row
    return made
