"""How results leave a command: tables for people, JSON, and notes."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from smx import files

STDOUT = "-"
PLAIN: dict[str, Any] = {"highlight": False, "markup": False, "emoji": False}  # names and paths are users' own


def console(json_path: str | None) -> Console:
    """Return where people read: standard output, unless JSON goes there."""
    stderr = json_path == STDOUT
    people = Console(stderr=stderr, **PLAIN)
    return people if people.is_terminal else Console(stderr=stderr, width=140, **PLAIN)


def logs() -> Console:
    """Return where progress and notes go: standard error."""
    return Console(stderr=True, **PLAIN)


def write_json(json_path: str | None, content: Any) -> Console:
    """Write JSON to a file, to standard output for `-`, or nowhere for None; return where people then read.

    Numbers that are not finite become null.
    """
    if json_path is not None:
        text = json.dumps(_finite(content), indent=2, ensure_ascii=False, allow_nan=False)
        if json_path == STDOUT:
            click.echo(text)
        else:
            files.write_text(json_path, text + "\n")
    return console(json_path)


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: _finite(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(entry) for entry in value]
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
    made = Table(**options)
    for heading in headings:
        right = heading.startswith(">")
        made.add_column(heading.removeprefix(">"), justify="right" if right else "left", overflow="fold")
    before: Sequence[str] | None = None
    for row in rows:
        if section is not None and before and before[section] != row[section]:
            made.add_section()
        made.add_row(*row)
        before = row
    return made
