"""The frame of the page: what was run, what is not done, all tests, how it was made."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pandas as pd

from smx.reporting.evidence import evidence
from smx.reporting.page import words
from smx.reporting.page.blocks import Block, Column, Part, Table, Text
from smx.reporting.study import Study
from smx.training.config import FIELDS

STATES = {"failed": "failed", "missing": "are missing"}
MOST = 12
"""Values of a fact that are listed."""


def title(study: Study) -> str:
    """Return the page's title."""
    data = _listed(study.table["data"])
    if study.kind == "run":
        row = study.table.iloc[0]
        return f"{words.name(row['method'])} on {data}, hidden layers {words.name(row['architecture'])}"
    return f"{words.plural(len(study.table), 'training run')} on {data}"


def facts(study: Study) -> list[tuple[str, str]]:
    """Return what was run, as pairs of a word and what it says."""
    table, counts = study.table, study.counts
    found = [("Data", _listed(table["data"]))]
    if study.kind == "run":
        row = study.cells.iloc[0]
        found += [
            ("Hidden layers", words.name(row["architecture"])),
            ("Method", words.name(row["method"])),
            ("Test accuracy", words.percent(row["test_accuracy"])),
        ]
    else:
        done = ", ".join(f"{counts[status]:,} {status}" for status in counts if counts[status] or status == "done")
        found += [
            ("Runs", done),
            ("Architectures", f"{table['architecture'].nunique():,}"),
            ("Methods", _listed(words.name(method) for method in table["method"])),
            ("Seeds", _listed(table["seed"].sort_values())),
        ]
    found.append(
        ("Epochs", f"{_listed(table['phase1_epochs'])} + {_listed(table['phase2_epochs'])} (phase 1 + phase 2)")
    )
    if times := _times(study):
        found.append(("Training time", times))
    if machines := _machines(study):
        found.append(("Machine", machines))
    if "threads" in study.cells and study.cells["threads"].notna().any():
        found.append(("Threads of a run", _listed(study.cells["threads"].dropna().astype(int))))
    return found


def _listed(values: Iterable[Any]) -> str:
    found = list(dict.fromkeys(words.text(value) for value in values))
    between = "; " if any("," in value for value in found) else ", "
    return between.join(found[:MOST]) + (f" and {len(found) - MOST} more" if len(found) > MOST else "")


def _times(study: Study) -> str:
    seconds = study.cells.get("seconds", pd.Series(dtype=float)).dropna()
    if seconds.empty:
        return ""
    if study.kind == "run":
        return words.duration(seconds.sum())
    return f"{words.duration(seconds.sum())} of all runs, {words.duration(seconds.mean())} each on average"


def _machines(study: Study) -> str:
    machines = [each for each in study.cells.get("machine", ()) if isinstance(each, dict)]
    named = (f"{each.get('processor') or each.get('system')}, {each.get('cores')} cores" for each in machines)
    return _listed(named)


def not_done(study: Study) -> Part | None:
    """Return the runs that failed, with their errors, and those that are missing."""
    rows = study.not_done
    if rows.empty:
        return None
    counts = study.counts
    said = [f"{counts[status]:,} {word}" for status, word in STATES.items() if counts[status]]
    text = (
        f"Of {words.plural(len(study.table), 'run')} {' and '.join(said)}. Comparisons use only pairs of runs that are"
        " both done."
    )
    columns = [
        Column("method", "method", words.name, numeric=False),
        Column("architecture", "hidden layers", words.name, numeric=False),
        Column("seed", "seed", words.count),
        Column("status", "status", numeric=False),
        Column("error", "error", numeric=False, long=True),
    ]
    failed_first = rows.sort_values("status", kind="stable")
    table = Table("not-done", "Runs that are not done", failed_first, columns, closed=not counts["failed"])
    return Part("not-done", "Failed and missing runs", [Text(text, strong=True), table])


def all_tests(study: Study) -> Part | None:
    """Return every test that a verdict rests on, with the correction for their number."""
    rows = evidence(study)
    if rows["p"].isna().all():
        return None
    survive, tested = int(rows["survives"].sum()), words.plural(int(rows["p"].notna().sum()), "test")
    text = (
        f"{survive} of {tested} survive Holm's correction at 5 %. It bounds the chance that even one difference is"
        " found that is not there."
    )
    columns = [
        *([Column("section", "runs", numeric=False)] if rows["section"].nunique() > 1 else []),
        Column("what", "what", numeric=False),
        Column("estimate", "estimate", words.significant, interval=("low", "high")),
        Column("unit", "unit", numeric=False),
        Column("test", "test", numeric=False),
        Column("n", "n", words.count),
        Column("p", "p", words.p),
        Column("p_corrected", "corrected p", words.p, flag="survives"),
    ]
    note = "Corrected p values below 0.05 are bold."
    return Part("tests", "All tests", [Text(text, strong=True), Table("tests", "All tests", rows, columns, note)])


def making(study: Study) -> Part:
    """Return the settings and the versions."""
    settings = [name for name in FIELDS if name in study.table]
    rows = pd.DataFrame(
        [
            {"setting": name, "values": _listed(study.table[name]), "default": words.text(_plain(FIELDS[name].default))}
            for name in settings
        ]
    )
    rows = rows.assign(other=[value != default for value, default in zip(rows["values"], rows["default"], strict=True)])
    columns = [
        Column("setting", "setting", numeric=False),
        Column("values", "value", numeric=False, flag="other", long=True),
        Column("default", "default", numeric=False),
    ]
    blocks: list[Block] = [
        Text(
            "Every method has the same data, split, epochs, schedule and seeds, unless a heading or the settings of a"
            " method with a name of its own say otherwise."
        ),
        Table(
            "settings", "Settings", rows, columns, "What differs from its default is bold.", closed=study.kind != "run"
        ),
    ]
    versions = _versions(study)
    if len(versions):
        columns = [Column("name", "what", numeric=False), Column("values", "value", numeric=False)]
        blocks.append(Table("versions", "Machine and versions", versions, columns, closed=True))
    return Part("making", "How it was made", blocks)


def _versions(study: Study) -> pd.DataFrame:
    machines = [each for each in study.cells.get("machine", ()) if isinstance(each, dict)]
    names = [name for name in dict.fromkeys(name for each in machines for name in each) if name != "load"]
    rows = [{"name": name, "values": _listed(each[name] for each in machines if each.get(name))} for name in names]
    return pd.DataFrame([row for row in rows if row["values"]])


def _plain(default: Any) -> Any:
    return ",".join(map(str, default)) if isinstance(default, tuple) else default
