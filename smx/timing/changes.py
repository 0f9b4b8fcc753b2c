"""What changed between two benches. Ratios are compared, not times, which depend on the machine and its state."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from smx import files
from smx.errors import InputError, no_file

CONDITIONS = ("provider", "settings", "io_binding", "level")
MACHINE = ("processor", "cores", "system", "governor", "python", "numpy", "onnxruntime")

FASTER, SLOWER, SAME = "faster", "slower", "within the intervals"


@dataclass(frozen=True, kw_only=True)
class Change:
    """One candidate at one batch size in an old and a new bench.

    Attributes:
        name, batch_size: of the candidate.
        old, new: ratio to the baseline, and the ends of its confidence interval.
        verdict: `FASTER` or `SLOWER` if the intervals do not overlap, else `SAME`.
    """

    name: str
    batch_size: int
    old: tuple[float, float, float]
    new: tuple[float, float, float]
    verdict: str


@dataclass(frozen=True, kw_only=True)
class Changes:
    """Two benches side by side.

    Attributes:
        rows: the candidates and batch sizes of both benches.
        conditions: (old, new) of each setting and each property of the machine that differs, by name.
        missing: candidates and batch sizes of the old bench alone.
        added: candidates and batch sizes of the new bench alone.
    """

    rows: tuple[Change, ...]
    conditions: dict[str, tuple[Any, Any]]
    missing: tuple[str, ...]
    added: tuple[str, ...]


def read_report(path: Path) -> dict[str, Any]:
    """Read the JSON file of an earlier bench.

    Raises:
        InputError: the file is missing or is no result of a bench.
    """
    if not path.is_file():
        raise InputError(f"{no_file(path)}; expected the JSON file of an earlier smx bench")
    try:
        report: dict[str, Any] = json.loads(files.read(path))
        report["machine"].items()
        if "cuda_graphs" in report:
            raise ValueError("it is of smx bench-train")
        if not isinstance(report["baseline"], str) or not all(min(ratio) > 0 for ratio in _ratios(report).values()):
            raise ValueError("it has no baseline, or ratios that are not positive")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(f"{path} is no result of smx bench --json ({type(error).__name__}: {error})") from error
    return report


def check_baseline(old: Mapping[str, Any], baseline: str) -> None:
    """Raise InputError if the ratios of two benches have different baselines."""
    if old["baseline"] != baseline:
        raise InputError(
            f"the old ratios refer to {old['baseline']}, the new ones to {baseline}: they can't be compared"
        )


def compare_reports(old: Mapping[str, Any], new: Mapping[str, Any]) -> Changes:
    """Compare two reports in the form of `TimingReport.to_dict`; raise InputError if their baselines differ."""
    check_baseline(old, new["baseline"])
    before, after = _ratios(old), _ratios(new)
    rows = [
        Change(name=name, batch_size=size, old=old_ratio, new=ratio, verdict=_verdict(old_ratio, ratio))
        for (name, size), ratio in after.items()
        if (old_ratio := before.get((name, size)))
    ]
    conditions = {key: (old.get(key), new.get(key)) for key in CONDITIONS}
    conditions |= {key: (old["machine"].get(key), new["machine"].get(key)) for key in MACHINE}
    return Changes(
        rows=tuple(rows),
        conditions={key: pair for key, pair in conditions.items() if pair[0] != pair[1]},
        missing=tuple(f"{name}, batch {size}" for name, size in before if (name, size) not in after),
        added=tuple(f"{name}, batch {size}" for name, size in after if (name, size) not in before),
    )


def _ratios(report: Mapping[str, Any]) -> dict[tuple[str, int], tuple[float, float, float]]:
    return {
        (str(row["name"]), int(row["batch_size"])): (
            float(row["ratio"]), float(row["ratio_low"]), float(row["ratio_high"]),
        )
        for row in report["results"]
    }  # fmt: skip


def _verdict(old: tuple[float, float, float], new: tuple[float, float, float]) -> str:
    return FASTER if new[2] < old[1] else SLOWER if new[1] > old[2] else SAME
