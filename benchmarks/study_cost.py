"""What a study has cost: the processor's time of its cells, by method and in all, from a sweep's folder.

    python benchmarks/study_cost.py runs/mnist --config short --seeds 4 --json docs/results/study-cost.json

The time is that of each cell's own process, all its threads together; other work on the machine lengthens it somewhat.
"""

from __future__ import annotations

from pathlib import Path

import click

from smx.cli import options
from smx.cli.output import table, write_json
from smx.cli.sweep import Seeds
from smx.timing.machine import machine
from smx.workflows.sweep import status


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--config", "grid", required=True, help="The grid whose cells count.")
@click.option("--seeds", type=Seeds(), help="Seeds, instead of the grid's.")
@options.json
def main(folder: Path, grid: str, seeds: tuple[int, ...] | None, json_path: str | None) -> None:
    """Add up what the cells of a grid took."""
    cells = status(folder, grid, seeds=seeds).frame
    done = cells[cells["status"] == "done"].dropna(subset=["processor_seconds"])
    seconds = done.groupby("method", sort=False)["processor_seconds"].sum()
    hours = {str(name): round(float(value) / 3600, 3) for name, value in seconds.items()}
    found = {
        "grid": grid,
        "seeds": sorted(int(seed) for seed in done["seed"].unique()),
        "cells": len(cells),
        "measured": len(done),
        "processor_hours": round(float(seconds.sum()) / 3600, 3),
        "processor_hours_by_method": hours,
        "machine": machine(),
    }
    people = write_json(json_path, found)
    rows = [(name, f"{value:.2f}") for name, value in hours.items()]
    people.print(table(("method", ">processor hours"), rows, title=f"{len(done)} of {len(cells)} cells"))
    people.print(f"{found['processor_hours']:.2f} processor hours in all")


if __name__ == "__main__":
    main()
