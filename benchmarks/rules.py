"""Does choosing pay? `python benchmarks/rules.py --json PATH`: both rules beside fixed activations, on MNIST.

A grid, `rules` or `largest`, is trained by `smx sweep`, which goes on where it was stopped. Then the networks of one
seed are exported (`sorted`; those with one activation a layer also `fastest`) and timed in turn, on one thread.
Accuracies are means over the seeds; each method's difference to the best fixed activation is paired by the seed, with
Student's 95 % interval. Which activation is the best is decided by the same seeds, which is rather too hard for the
rules.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

import click
import pandas as pd
from student import half_width

import smx
from smx.cli import options
from smx.cli.output import logs, table, write_json
from smx.paper import PAPER_POOL
from smx.study.grid import read_grid
from smx.timing import BATCH_SIZES
from smx.timing.machine import machine

ONE_GROUP = ("recommended", "from relu per layer", "matched per layer", "matched one group")
"""The methods that give each layer one activation."""


@click.command()
@click.option("--grid", type=click.Choice(["rules", "largest"]), default="rules", show_default=True)
@click.option("--out", type=options.PATH, default="runs/rules", show_default=True, help="Folder of the sweep.")
@click.option("--jobs", type=click.IntRange(min=1), default=2, show_default=True)
@click.option("--timed-seed", type=int, default=3, show_default=True, help="Whose networks are timed.")
@click.option("--smallest", is_flag=True, help="A moment on the digits: only to see that this works.")
@options.json
def main(grid: str, out: Path, jobs: int, timed_seed: int, smallest: bool, json_path: str | None) -> None:
    """Train, compare, export and time."""
    seeds: list[int] | None = None
    settings: dict[str, Any] = {}
    rounds, batch_sizes = 60, tuple(BATCH_SIZES)
    if smallest:
        seeds, rounds, batch_sizes = [timed_seed, timed_seed + 1], 3, BATCH_SIZES[:2]
        settings = {"data": "digits", "hidden": "8", "phase1_epochs": 1, "phase2_epochs": 1}
    logs().print("training ...")
    frame = smx.sweep(grid, out=out, jobs=jobs, seeds=seeds, settings=settings).frame
    with tempfile.TemporaryDirectory() as folder:
        logs().print("exporting ...")
        files = exported(frame[frame["seed"] == timed_seed], out, Path(folder))
        logs().print("timing ...")
        timed = smx.bench(files, reference="relu", batch_sizes=batch_sizes, rounds=rounds)
    content: dict[str, Any] = {
        "methods": accuracies(frame),
        "timed_seed": timed_seed,
        "latency": timed.to_dict(),
        "settings": {**read_grid(grid).base, **settings},
        "machine": machine(),
    }
    people = write_json(json_path, content)
    rows = [
        (row["method"], str(row["seeds"]), f"{row['mean']:.4f}", f"{row['to_best']:+.4f}", f"{row['half_width']:.4f}")
        for row in content["methods"]
    ]
    people.print(table(("method", ">seeds", ">accuracy", ">to the best fixed", ">+-"), rows))
    latency = [(row.name, str(row.batch_size), f"{row.ratio:.2f}") for row in timed.results]
    people.print(table(("file", ">batch", ">to relu"), latency))


def accuracies(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Return for each method its test accuracy over the seeds, and the difference to the best fixed activation."""
    by_seed = frame.pivot(index="seed", columns="method", values="test_accuracy").dropna()
    best = by_seed[by_seed.columns.intersection(PAPER_POOL)].mean().idxmax()
    found = []
    for method in by_seed.columns:
        difference = by_seed[method] - by_seed[best]
        found.append(
            {
                "method": method,
                "seeds": len(by_seed),
                "mean": by_seed[method].mean(),
                "deviation": by_seed[method].std(ddof=1),
                "best_fixed": best,
                "to_best": difference.mean(),
                "half_width": half_width(difference),
            }
        )
    return sorted(found, key=lambda row: -row["mean"])


def exported(frame: pd.DataFrame, out: Path, folder: Path) -> list[Path]:
    """Export the networks of one seed, each under the name of its method, and ReLU's again as the control."""
    files = []
    for cell, method in zip(frame["cell"], frame["method"], strict=True):
        for layout in ("sorted", "fastest") if method in ONE_GROUP else ("sorted",):
            name = method.replace(" ", "_") + ("_fastest" if layout == "fastest" else "")
            files.append(folder / f"{name}.onnx")
            smx.export_model(out / "cells" / cell / "model.pt", files[-1], layout=layout)
    shutil.copy(folder / "relu.onnx", folder / "relu_again.onnx")
    return [*files, folder / "relu_again.onnx"]


if __name__ == "__main__":
    main()
