"""What a page consists of: parts that hold sentences, tables and charts. Plain data; the templates show it."""

from __future__ import annotations

import math
from base64 import b64encode
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import pandas as pd
from markupsafe import Markup

from smx.reporting.page import words


@dataclass(frozen=True)
class Text:
    """A paragraph.

    Attributes:
        words: what it says.
        strong: it is the answer of its part.
    """

    words: str
    strong: bool = False
    kind: str = "text"


@dataclass(frozen=True)
class Chart:
    """A figure.

    Attributes:
        name: of its data; unique on a page.
        title: what it shows.
        svg: its drawing, from `smx.reporting.charts`.
        data: what is drawn, for download.
        note: how it is to be read.
    """

    name: str
    title: str
    svg: str
    data: pd.DataFrame
    note: str = ""
    kind: str = "chart"

    @property
    def markup(self) -> Markup:
        """The drawing as it stands in the page: matplotlib has escaped every text in it."""
        return Markup(self.svg)

    @property
    def download(self) -> str:
        """See `as_link`."""
        return as_link(self.data)


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        name: of the data frame's column.
        heading: what stands above it.
        write: writes a value.
        numeric: whether it holds numbers, which stand to the right and are sorted by value.
        interval: the columns of the ends of an interval that is written behind the value, small.
        flag: a column of the frame; where it is true the value is bold.
        long: whether it holds sentences.
    """

    name: str
    heading: str
    write: Callable[[Any], str] = words.text
    numeric: bool = True
    interval: tuple[str, str] | None = None
    flag: str | None = None
    long: bool = False


@dataclass(frozen=True)
class Entry:
    """One cell of a table: what it shows, what it is sorted by, what stands small behind it."""

    text: str
    key: str
    small: str = ""
    strong: bool = False


@dataclass(frozen=True)
class Table:
    """A table that a reader can sort.

    Attributes:
        name: of its data; unique on a page.
        title: what it shows.
        data: the rows.
        columns: those that are shown, where they hold something.
        note: how it is to be read.
        closed: whether only its title is shown until a reader opens it.
    """

    name: str
    title: str
    data: pd.DataFrame
    columns: Sequence[Column]
    note: str = ""
    closed: bool = False
    kind: str = "table"

    @cached_property
    def rows(self) -> list[list[Entry]]:
        """What the table shows."""
        return [[_entry(row, column) for column in self.shown] for row in self.data.to_dict("records")]

    @cached_property
    def shown(self) -> list[Column]:
        """The columns that hold something."""
        return [column for column in self.columns if not all(map(words.missing, self.data.get(column.name, ())))]

    @property
    def download(self) -> str:
        """See `as_link`."""
        return as_link(self.data)


@dataclass(frozen=True)
class Group:
    """Blocks that stand behind one title until a reader opens it."""

    title: str
    blocks: Sequence[Any]
    kind: str = "group"


Block = Text | Chart | Table | Group


@dataclass(frozen=True)
class Part:
    """A part of the page, with a heading that the contents list.

    Attributes:
        id: the anchor; unique on a page.
        title: its heading.
        blocks: what it holds.
        section: the settings of the cells that it is about; "" where there is one group of cells.
    """

    id: str
    title: str
    blocks: Sequence[Block] = field(default_factory=list)
    section: str = ""


def named(blocks: Iterable[Any]) -> dict[str, Table | Chart]:
    """Return all tables and charts by their names."""
    found: dict[str, Table | Chart] = {}
    for block in blocks:
        if isinstance(block, Group):
            found |= named(block.blocks)
        elif isinstance(block, Table | Chart):
            found[block.name] = block
    return found


def as_link(data: pd.DataFrame) -> str:
    """Return the address of a CSV file that is inside the address itself.

    A text that a spreadsheet would run as a formula gets an apostrophe in front.
    """
    safe = data.map(_defused).rename(columns=_defused)
    return "data:text/csv;base64," + b64encode(safe.to_csv(index=False).encode()).decode()


def _defused(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and value[:1] in "=+-@\t\r" and value else value


def _entry(row: dict[str, Any], column: Column) -> Entry:
    value = row.get(column.name)
    small = ""
    if column.interval and not any(words.missing(row.get(end)) for end in column.interval):
        small = f"{column.write(row[column.interval[0]])} to {column.write(row[column.interval[1]])}"
    strong = bool(column.flag and row.get(column.flag) is True)
    return Entry(column.write(value), _key(value, column.numeric), small, strong)


def _key(value: Any, numeric: bool) -> str:
    """Return what a column is sorted by; nothing for what is missing, which comes last."""
    if words.missing(value):
        return ""
    if numeric and isinstance(value, int | float):
        return repr(float(value)) if math.isfinite(value) else ""
    return str(value)[:80].casefold()
