"""Tables for people."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from rich.table import Table


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
