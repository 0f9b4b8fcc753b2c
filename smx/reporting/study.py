"""A study's cells as the report takes them: what is done, what is not, and which of them may be compared."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from smx.study.cell import DONE, FAILED, MISSING
from smx.study.methods import CONTROLS, PAPER_METHODS, RULES
from smx.training.config import FIELDS

APART = ("hidden", "model", "seed", "activation", "tensorboard")
"""Settings that never set cells apart: architecture, seed and method do by themselves; the last changes no result."""
SAME = ("data", "protocol")
"""Settings that no method may have of its own: accuracies on other data are not compared."""
KNOWN: Mapping[str, Mapping[str, Any]] = {**CONTROLS, **RULES}
"""What methods set that are more than an activation."""


@dataclass(frozen=True)
class Section:
    """Cells that differ in method, architecture and seed alone, so that they may be compared.

    Attributes:
        title: the settings that set it apart from other sections, as `protocol = author, lr = 0.001`; "" for the only
            section of a study.
        cells: a row each done cell: the columns of the table, and `architecture` (see `architecture_of`).
    """

    title: str
    cells: pd.DataFrame

    @cached_property
    def methods(self) -> list[str]:
        """The methods that have done cells: the paper's in its order, controls, then others as they come."""
        return in_order(self.cells["method"])

    @cached_property
    def architectures(self) -> list[str]:
        """The architectures that have done cells, as they come in the table."""
        return list(dict.fromkeys(self.cells["architecture"]))

    @cached_property
    def contenders(self) -> list[str]:
        """The methods that are ranked: the paper's, and others, but not controls, that have every architecture."""
        every = self.cells.groupby("method")["architecture"].nunique() == len(self.architectures)
        found = [method for method in self.methods if method not in CONTROLS]
        return [method for method in found if method in PAPER_METHODS or every[method]]

    @cached_property
    def complete(self) -> dict[str, NDArray[np.float64]]:
        """The test accuracies (seeds, contenders) of each architecture, for the seeds that all contenders have."""
        if not self.contenders:  # as in a study of controls alone
            return {}
        table = self.cells.pivot_table(index=["architecture", "seed"], columns="method", values="test_accuracy")
        rows = table.reindex(columns=self.contenders).dropna().groupby(level="architecture")
        values = {str(name): own.to_numpy(np.float64) for name, own in rows}
        return {name: values[name] for name in self.architectures if name in values}


@dataclass(frozen=True, eq=False)
class Study:
    """What a report is made from.

    Attributes:
        source: where it was read from.
        kind: run, sweep or table.
        table: a row each cell, also those that failed or are missing; with `architecture`.
    """

    source: Path
    kind: str
    table: pd.DataFrame

    @cached_property
    def cells(self) -> pd.DataFrame:
        """The done cells."""
        return self.table[self.table["status"] == DONE]

    @property
    def counts(self) -> dict[str, int]:
        """How many cells are done, failed and missing."""
        found = self.table["status"].value_counts()
        return {status: int(found.get(status, 0)) for status in (DONE, FAILED, MISSING)}

    @property
    def not_done(self) -> pd.DataFrame:
        """The cells that failed or are missing: method, architecture, seed, status, error."""
        rows = self.table[self.table["status"] != DONE]
        return rows.reindex(columns=["method", "architecture", "seed", "status", "error"]).reset_index(drop=True)

    @cached_property
    def varying(self) -> list[str]:
        """The settings, beside architecture and seed, that differ although the method does not ask for it."""
        return [name for name in FIELDS if name not in APART and _varies(self.table, name)]

    @cached_property
    def sections(self) -> list[Section]:
        """The groups of done cells that may be compared, in the order of the table."""
        cells = self.cells.drop_duplicates([*self.varying, "method", "architecture", "seed"])
        if not self.varying:
            return [Section("", cells)]
        groups = [own for _, own in cells.groupby(self.varying, sort=False, dropna=False)]
        firsts = pd.DataFrame([own.iloc[0] for own in groups])[self.varying]
        names = _telling(firsts)
        titles = (_title(names, values) for values in firsts[names].itertuples(index=False, name=None))
        return [Section(title, own) for title, own in zip(titles, groups, strict=True)]


def _varies(table: pd.DataFrame, name: str) -> bool:
    """Say whether a setting differs within a method, or between methods that are known to say nothing of it.

    A rule or a control says what its entry in `KNOWN` sets, and a method under a name of the user's own may say
    anything but `SAME`.
    """
    if bool((table.groupby("method")[name].nunique() > 1).any()):
        return True
    if name in SAME:
        return bool(table[name].nunique() > 1)
    silent = {method for method in (*PAPER_METHODS, *KNOWN, *table["activation"]) if name not in KNOWN.get(method, ())}
    return bool(table[table["method"].isin(silent)][name].nunique() > 1)


def _telling(rows: pd.DataFrame) -> list[str]:
    """Return the columns without those, from the last one on, that are not needed to tell the rows apart."""
    names = list(rows.columns)
    for name in reversed(names):
        others = [other for other in names if other != name]
        if others and not rows.duplicated(others).any():
            names = others
    return names


def _title(names: Sequence[str], values: Sequence[object]) -> str:
    return ", ".join(f"{name} = {value}" for name, value in zip(names, values, strict=True))


def in_order(methods: Iterable[str]) -> list[str]:
    """Return the methods, each once: the paper's in its order, controls, then others as they come."""
    found = dict.fromkeys(methods)
    first = (*PAPER_METHODS, *CONTROLS)
    return [name for name in first if name in found] + [name for name in found if name not in first]


def architecture_of(row: Mapping[str, Any]) -> str:
    """Return a cell's architecture as the report names it: `512-256-128` for an mlp, the model's name for others."""
    return str(row["hidden"]).replace(",", "-") if row["model"] == "mlp" else str(row["model"])
