"""What `select` selects: a table of a network's activations, with the reason for each that is left."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Any

from torch import nn

from smx.convert.modularize import ACTIVATIONS, activation_name

UNCALLED = "it is not called in eval()"


@dataclass(frozen=True)
class Row:
    """An activation of a network.

    Attributes:
        path: of its module in the network that `select` returns; that of a call that stays a call ends in `()`.
        call: how it is written: `module`, `function` or `formula`.
        activation: its name as a function of PyTorch, or its class.
        neurons: how many there are; None where that is not known.
        dim: their axis, negative where it counts from the end; None where it is not known.
        left: why it is left; None if it is selected.
        obstacle: why it can't be selected, whatever one includes.
    """

    path: str
    call: str
    activation: str
    neurons: int | None
    dim: int | None
    left: str | None = None
    obstacle: str | None = None

    @property
    def selected(self) -> bool:
        """Whether it becomes a `Selective`."""
        return self.left is None


@dataclass(frozen=True)
class Plan:
    """All activations of a network, in the order in which a run calls them; `str()` is a table.

    Attributes:
        rows: the activations.
        export: why the network can't be exported once it is committed, in one line; empty if it can be, and None if
            nobody tried, see `smx.plan`.
    """

    rows: tuple[Row, ...]
    export: str | None = None

    def __iter__(self) -> Iterator[Row]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, path: str) -> Row:
        """Return the row of a path.

        Raises:
            KeyError: there is none.
        """
        for row in self.rows:
            if row.path == path:
                return row
        raise KeyError(path)

    @property
    def selected(self) -> tuple[Row, ...]:
        """Those that become a `Selective`."""
        return tuple(row for row in self.rows if row.selected)

    @property
    def left(self) -> dict[str, str]:
        """Those that are left, by path, with the reasons."""
        return {row.path: row.left for row in self.rows if row.left is not None}

    @property
    def warning(self) -> str:
        """One line on hidden activations that can't be selected; empty if there is none."""
        rows = [row for row in self.rows if row.left and row.left == row.obstacle != UNCALLED]
        if not rows:
            return ""
        first = rows[0]
        others = f" and {len(rows) - 1} more" if len(rows) > 1 else ""
        return f"left: {first.activation} at {first.path or 'the top'}{others}: {first.left}; smx.plan lists all"

    def __str__(self) -> str:
        heads = ("path", "call", "activation", "neurons", "dim", "")
        table = [heads]
        for row in self.rows:
            neurons, dim = ("-" if value is None else str(value) for value in (row.neurons, row.dim))
            verdict = "selected" if row.selected else f"left: {row.left}"
            table.append((row.path, row.call, row.activation, neurons, dim, verdict))
        widths = [max(len(line[i]) for line in table) for i in range(len(heads))]
        lines = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in table]
        if self.export is not None:
            lines.append(f"can't be exported: {self.export}" if self.export else "can be exported")
        return "\n".join(line.rstrip() for line in lines)


def narrowed(rows: Iterable[Row], modules: Mapping[str, nn.Module], include: Any, exclude: Any) -> tuple[Row, ...]:
    """Return rows of which those are selected that `include` names, and those left that `exclude` names.

    A pattern is a path, the path of a module around it, a glob, a module type or a function. What can't be selected is
    left in any case.

    Raises:
        ValueError: a pattern is of an unknown kind, or names nothing.
    """
    rows = tuple(rows)
    named = []
    for given, word in ((include, "include"), (exclude, "exclude")):
        paths: set[str] = set()
        for pattern in _listed(given):
            found = {row.path for row in rows if _matches(pattern, row, modules.get(row.path), word)}
            if not found:
                raise ValueError(f"{word} names no activation of the network: {pattern!r}; smx.plan lists their paths")
            paths |= found
        named.append(paths)
    included, excluded = named
    rows = tuple(replace(row, left=row.obstacle) if row.path in included else row for row in rows)
    return tuple(replace(row, left="it is excluded") if row.path in excluded else row for row in rows)


def _listed(given: Any) -> list[Any]:
    return list(given) if isinstance(given, list | tuple | set | frozenset) else [given]


def _matches(pattern: Any, row: Row, module: nn.Module | None, word: str) -> bool:
    if isinstance(pattern, str):
        around = row.path.startswith(f"{pattern}.")
        return row.path == pattern or around or fnmatchcase(row.path, pattern)
    if isinstance(pattern, type) and issubclass(pattern, nn.Module):
        return isinstance(module, pattern) or ACTIVATIONS.get(row.activation) is pattern
    if name := activation_name(pattern, (nn.Module,)):
        return row.activation == name
    raise ValueError(f"{word} takes paths, globs, module types and functions such as F.relu, got {pattern!r}")
