"""Small grids on the digits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

SMALL: dict[str, Any] = {
    "base": {"data": "digits", "phase1_epochs": 1, "phase2_epochs": 2, "lr": 1e-3, "device": "cpu"},
    "grid": {"hidden": [[8], [8, 6]], "method": ["smartmixed", "relu"], "seed": [0, 1]},
}


def with_grid(**axes: Any) -> dict[str, Any]:
    return {"base": SMALL["base"], "grid": axes}


def written(path: Path, grid: dict[str, Any]) -> Path:
    """Write a grid as TOML."""
    lines = []
    for table, values in grid.items():
        lines += [f"[{table}]", *(f"{name} = {value!r}" for name, value in values.items())]
    path.write_text("\n".join(lines).replace("True", "true"))
    return path


def comparable(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return rows without what differs between runs: times and the machine's load."""
    left_out = {"seconds", "processor_seconds", "phase1_seconds", "finished", "machine", "threads", "latency"}
    return [{name: value for name, value in row.items() if name not in left_out} for row in rows]
