"""Tables of studies that nobody trained, for tests of the page."""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from smx.reporting.source import study
from smx.reporting.study import Study
from smx.study import table
from smx.study.grid import read_grid

BASE = {"data": "digits", "phase1_epochs": 2, "phase2_epochs": 3}
SMALL = {"hidden": [[24, 16, 8], [24, 16], [24]], "method": ["smartmixed", "relu", "selu", "shuffled"], "seed": [0, 1]}
MACHINE = {"cores": 2, "processor": "a processor", "python": "3.11.7", "torch": "2.13.0", "load": [0.1, 0.2, 0.3]}


def rows(
    grid: dict[str, Any] | None = None, base: dict[str, Any] | None = None, **methods: Any
) -> list[dict[str, Any]]:
    """Return the rows of a grid's cells, all done."""
    cells = read_grid({"base": {**BASE, **(base or {})}, "grid": grid or SMALL, "methods": methods}).cells()
    return [table.row(cell, result(cell.config)) for cell in cells]


def result(config: Any) -> dict[str, Any]:
    """Return results like those of `train_cell`, drawn at random."""
    draw = np.random.default_rng(zlib.crc32(str(config).encode()))
    pool = list(config.candidates)
    chooses = len(pool) > 1
    phases = [1] * config.phase1_epochs + [2] * config.phase2_epochs if chooses else [2] * sum(config.phases.values())
    curves: dict[str, Any] = {"phase": phases}
    for name in ("train_loss", "validation_loss", "train_accuracy", "validation_accuracy"):
        curves[name] = draw.random(len(phases)).round(5).tolist()
    layers = {f"layer{k + 1}": draw.dirichlet(np.ones(len(pool))) for k in range(len(config.hidden))}
    size = (len(pool), len(pool))
    accuracy = float(draw.integers(300, 360)) / 360
    return {
        "test_accuracy": accuracy,
        "validation_accuracy": accuracy,
        "epochs": config.phase2_epochs,
        "best_epoch": 1,
        "phase1_test_accuracy": accuracy - 0.05 if chooses else None,
        "phase1_validation_accuracy": accuracy - 0.04 if chooses else None,
        "phase1_test_accuracy_sampled": accuracy - 0.07 if chooses else None,
        "phase1_validation_accuracy_sampled": accuracy - 0.06 if chooses else None,
        "seconds": float(draw.uniform(1, 2)),
        "phase1_seconds": 0.5,
        "test_loss": float(draw.random()),
        "calibration_error": float(draw.random()),
        "parameters": 1000,
        "neurons": sum(config.hidden),
        "classes": 10,
        "connections": {"sum": draw.normal(size=size).tolist(), "count": np.full(size, 9.0).tolist()}
        if chooses and len(config.hidden) > 1
        else None,
        "curves": curves,
        "shares": {layer: dict(zip(pool, map(float, each), strict=True)) for layer, each in layers.items()},
        "shares_by_epoch": {
            layer: {name: [float(share)] * config.phase1_epochs for name, share in zip(pool, each, strict=True)}
            for layer, each in layers.items()
        }
        if chooses
        else {},
        "threads": 1,
        "machine": MACHINE,
        "finished": "2026-01-01T00:00:00+00:00",
    }


def undone(row: dict[str, Any], error: str | None = None) -> dict[str, Any]:
    """Return a row as if its cell had failed, or were missing."""
    kept = list(row)[: list(row).index("test_accuracy")]
    return {**{name: row[name] for name in kept}, "status": "failed" if error else "missing", "error": error}


def study_of(each: Iterable[dict[str, Any]]) -> Study:
    """Return a study of rows."""
    return study(Path("made.parquet"), "table", table.frame(each))


def written(each: Iterable[dict[str, Any]], path: Path) -> Path:
    """Write rows as a table."""
    table.write(pd.DataFrame(list(each)), path)
    return path
