"""Does `smx tune` keep its word? `python benchmarks/tune_check.py --json PATH` tunes several times and checks.

The paper's largest network in both layouts, `scatter` being the default, or a file of your own. After each search its
winner is measured against the default once more, in a measurement that the search knows nothing of; a winner is worse
if the interval of that ratio lies wholly above 1. Where the search kept the default, this measures it against itself.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import click
from rich.table import Table

from smx.cli.options import console, json_option, logs, write_json
from smx.runtime.latency.runner import SessionRunner
from smx.runtime.session import Session
from smx.runtime.settings import Settings
from smx.runtime.tune.goals import ratio, ratio_interval
from smx.runtime.tune.search import Candidate, TuningReport, tune
from smx.subprocesses import in_subprocess
from smx.timing.interleave import time_in_turn
from smx.timing.machine import machine

BLOCKS = 20


@click.command()
@click.argument("path", required=False, metavar="[MODEL.onnx]", type=click.Path(path_type=Path))
@click.option("--runs", default=5, show_default=True, metavar="N", help="Searches, each with another seed.")
@click.option("--goal", default="p50", show_default=True, metavar="NAME", help="p50, p99 or throughput.")
@click.option("--batch-size", default=16, show_default=True, metavar="N", help="Examples a run.")
@click.option("--rounds", default=200, show_default=True, metavar="N", help="Of each check.")
@json_option
def main(path: Path | None, runs: int, goal: str, batch_size: int, rounds: int, json_path: str | None) -> None:
    """Tune, check the winner, and tell whether it is ever worse than the default."""
    before, rows = machine(), []
    with tempfile.TemporaryDirectory() as folder:
        # The process that measures never loads torch, whose threads would disturb it.
        files = {"": path} if path else in_subprocess(export, Path(folder))
        for seed in range(runs):
            logs().print(f"run {seed + 1} of {runs} ...")
            report = tune(files, goal=goal, batch_size=batch_size, seed=seed)
            rows.append({"seed": seed, **found(report), **check(files, report, rounds, seed)})
    show(rows, json_path)
    write_json(json_path, {"goal": goal, "batch_size": batch_size, "rounds": rounds, "runs": rows, "machine": before})


def export(folder: Path) -> dict[str, Path]:
    """Write the network in both layouts."""
    from paper_model import paper_model

    from smx.export import export_onnx

    saved = paper_model()
    files = {name: folder / f"{layout}.onnx" for name, layout in {"": "scatter", "sorted": "sorted"}.items()}
    for path in files.values():
        example = saved.example_input()
        export_onnx(saved.build(), path, example_input=example, layout=path.stem, describe=saved.description())
    return files


def found(report: TuningReport) -> dict[str, Any]:
    """Return what the tuner says of its winner."""
    return {"winner": report.winner.describe(), "kept_default": report.kept_default, "ratio": report.gain["ratio"]}


def check(files: dict[str, Path], report: TuningReport, rounds: int, seed: int) -> dict[str, Any]:
    """Measure the winner against the default."""
    size = report.batch_size

    def runner(candidate: Candidate) -> SessionRunner:
        return SessionRunner(files[candidate.file], "cpu", candidate.settings)

    inputs = Session(files[""], settings=Settings()).random_inputs(size, seed)
    runners = {"winner": runner(report.winner), "default": runner(Candidate())}
    timings = time_in_turn(
        runners, {size: inputs}, blocks=BLOCKS, rounds=-(-rounds // BLOCKS), rest=True, seed=1000 + seed
    )
    low, high = ratio_interval(report.goal, timings, "winner", "default", size)
    checked = ratio(report.goal, timings, "winner", "default", size)
    return {"check_ratio": checked, "low": low, "high": high, "worse": low > 1}


def show(rows: list[dict[str, Any]], json_path: str | None) -> None:
    """Print a line a run."""
    people = console(json_path)
    table = Table(caption="ratio to the default, by the tuner and in the check, and the check's 99% interval")
    for heading in ("run", "winner", "tuner", "check", "interval", ""):
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
