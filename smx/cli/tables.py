"""Tables for people."""

from __future__ import annotations

from typing import Any

from rich.table import Table


def table(*headings: str, **options: Any) -> Table:
    """Make a table; a heading that begins with `>` is above numbers, which stand to the right."""
    made = Table(**options)
    for heading in headings:
        made.add_column(heading.removeprefix(">"), justify="right" if heading.startswith(">") else "left")
    return made
