"""Is what `smx tune` finds really faster? `python benchmarks/tune_check.py --json PATH` tunes several times and checks.

The paper's largest network in both layouts, `scatter` being the default, or a file of your own. After each search its
winner is measured against the default once more, independently of the search; a winner is worse if the whole interval
of that ratio is above 1. Where the defaults stay, this measures them against themselves.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import click
from rich.table import Table

from smx.cli import options
from smx.cli.output import console, logs, write_json
from smx.paper import LARGEST
from smx.runtime.latency.measure import measure_latency
from smx.runtime.latency.runner import SessionRunner
from smx.runtime.settings import Settings
from smx.runtime.tune.goals import GOALS, ratio
from smx.runtime.tune.search import DEFAULT, TuningReport, tune
from smx.subprocesses import in_subprocess
from smx.timing.machine import machine


@click.command()
@click.argument("path", required=False, metavar="[MODEL.onnx]", type=click.Path(path_type=Path))
@click.option("--runs", default=5, show_default=True, metavar="N", help="Searches, each with another seed.")
@click.option("--goal", type=click.Choice(list(GOALS)), default="p50", show_default=True)
@click.option("--batch-size", default=16, show_default=True, metavar="N", help="Examples a run.")
@click.option("--rounds", default=200, show_default=True, metavar="N", help="Of each check.")
@click.option("--smallest", is_flag=True, help="A small network, once: only to see that this works.")
@options.json
def main(
    path: Path | None, runs: int, goal: str, batch_size: int, rounds: int, smallest: bool, json_path: str | None
) -> None:
    """Tune, check the winner, and say whether it is ever worse than the default."""
    before, rows = machine(), []
    sizes: tuple[int, ...] = LARGEST
    options: dict[str, Any] = {"rounds": 60}
    if smallest:
        runs, rounds, sizes, options = 1, 20, (784, 24, 16, 10), {"rounds": 20, "max_threads": 1}
    with tempfile.TemporaryDirectory() as folder:
        # The process that measures never loads torch, whose threads would disturb it.
        files = {"": path} if path else in_subprocess(export, Path(folder), sizes)
        for seed in range(runs):
            logs().print(f"run {seed + 1} of {runs} ...")
            report = tune(files, goal=goal, batch_size=batch_size, seed=seed, **options)
            rows.append({"seed": seed, **search(report), **check(files, report, rounds, seed)})
    show(rows, json_path)
    write_json(json_path, {"goal": goal, "batch_size": batch_size, "rounds": rounds, "runs": rows, "machine": before})


def export(folder: Path, sizes: tuple[int, ...]) -> dict[str, Path]:
    """Write the network in both layouts."""
    from paper_model import paper_model

    from smx.export import export_onnx

    saved = paper_model(sizes)
    files = {name: folder / f"{layout}.onnx" for name, layout in {"": "scatter", "sorted": "sorted"}.items()}
    for path in files.values():
        example = saved.example_input()
        export_onnx(saved.build(), path, example_input=example, layout=path.stem, describe=saved.description())
    return files


def search(report: TuningReport) -> dict[str, Any]:
    """Return what the search says of its winner."""
    winner = "the defaults stay" if report.kept_default else report.winner.describe()
    return {"winner": winner, "kept_default": report.kept_default, "ratio": report.gain["ratio"]}


def check(files: dict[str, Path], report: TuningReport, rounds: int, seed: int) -> dict[str, Any]:
    """Measure the winner against the default."""
    size = report.batch_size
    runners = {
        name: SessionRunner(files[each.file], "cpu", each.settings)
        for name, each in {"winner": report.winner, "default": DEFAULT}.items()
    }
    timings = measure_latency(
        runners, baseline="default", batch_sizes=[size], settings=Settings(), rounds=rounds, seed=1000 + seed
    ).timings
    checked, low, high = ratio(report.goal, timings, "winner", "default", size)
    return {"check_ratio": checked, "low": low, "high": high, "worse": low > 1}


def show(rows: list[dict[str, Any]], json_path: str | None) -> None:
    """Print a line a run."""
    people = console(json_path)
    table = Table(caption="ratio to the default, by the search and in the check, and the check's 99% interval")
    for heading in ("run", "winner", "search", "check", "interval", ""):
        table.add_column(heading, justify="left" if heading == "winner" else "right")
    for row in rows:
        interval = f"{row['low']:.3f} - {row['high']:.3f}"
        figures = (f"{row['ratio']:.3f}", f"{row['check_ratio']:.3f}", interval, "worse" if row["worse"] else "")
        table.add_row(str(row["seed"]), row["winner"], *figures)
    people.print(table)
    worse = sum(row["worse"] for row in rows)
    people.print(f"worse than the default beyond the interval: {worse} of {len(rows)}")


if __name__ == "__main__":
    main()
