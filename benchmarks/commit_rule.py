"""Does `--phase1-epochs auto` do as well as the fixed 50? `python benchmarks/commit_rule.py --json PATH`.

Both schedules train the same network on MNIST with the same seeds and the same number of epochs of phase 2. They are
compared by the validation accuracy of the epoch that is kept in model.pt, and by the number of epochs after which a run
reaches the validation accuracy of the fixed schedule. The runs are kept in --out, and a stopped one is continued.
"""

from __future__ import annotations

import statistics
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import click
from rich.table import Table

from smx.cli import options
from smx.cli.output import console, logs, write_json
from smx.cli.progress import training_progress
from smx.training.config import AUTO, TrainConfig

FIXED = TrainConfig(data="mnist", hidden=(512, 256, 128), phase1_epochs=50, device="cpu")
SMALLEST = replace(FIXED, data="digits", hidden=(8,), phase1_epochs=2, max_phase1_epochs=2, settle_window=1)
RULE = ("max_phase1_epochs", "settle_window", "settle_changed", "settle_margin", "settle_loss")


@click.command()
@click.option("--seeds", type=click.IntRange(min=1), default=3, show_default=True, metavar="N", help="From 0 on.")
@click.option("--phase2-epochs", type=click.IntRange(min=1), default=40, show_default=True, metavar="EPOCHS")
@click.option("--out", type=click.Path(path_type=Path), default=Path("runs/commit-rule"), show_default=True)
@click.option("--smallest", is_flag=True, help="On the digits, with one seed and one epoch of phase 2: for a test.")
@options.data_dir
@options.json
def main(
    seeds: int, phase2_epochs: int, out: Path, smallest: bool, data_dir: Path | None, json_path: str | None
) -> None:
    """Train with both schedules, with several seeds."""
    from smx import data
    from smx.timing.machine import machine

    base, seeds, phase2_epochs = (SMALLEST, 1, 1) if smallest else (FIXED, seeds, phase2_epochs)
    dataset = data.load(base.data, data_dir)
    rows: list[dict[str, Any]] = []
    for seed in range(seeds):
        target = None
        for schedule in ("fixed", AUTO):
            epochs = AUTO if schedule == AUTO else base.phase1_epochs
            config = replace(base, phase1_epochs=epochs, phase2_epochs=phase2_epochs, seed=seed)
            logs().print(f"seed {seed}, {schedule} ...")
            row = measure(config, dataset, out / f"{schedule}-{seed}", target)
            target = target or row["validation_accuracy"]
            rows.append({"seed": seed, "schedule": schedule, **row})
    show(rows, json_path)
    rule = {name: asdict(base)[name] for name in RULE}
    content = {"settings": base.to_dict(), "rule": rule, "phase2_epochs": phase2_epochs, "runs": rows}
    write_json(json_path, {**content, "summary": summary(rows), "machine": machine()})


def measure(config: TrainConfig, dataset: Any, out: Path, target: float | None) -> dict[str, Any]:
    """Train, or take the finished run; return what counts of it. Without a target it is the run's own accuracy."""
    from smx.training.run import load_checkpoint, train

    checkpoint = load_checkpoint(out)
    with training_progress(config) as on_epoch:
        result = train(config, dataset, out, checkpoint=checkpoint, on_epoch=on_epoch)
    metrics = result.model.metrics
    accuracy = metrics["phase2"]["validation_accuracy"]
    goal = accuracy if target is None else target
    reached = [number for number, row in enumerate(result.rows, 1) if row.validation_accuracy >= goal]
    return {
        "phase1_epochs": metrics["phase1"]["epochs"],
        "epochs": len(result.rows),
        "best_epoch": metrics["phase1"]["epochs"] + metrics["phase2"]["best_epoch"],
        "validation_accuracy": accuracy,
        "test_accuracy": metrics["phase2"]["test_accuracy"],
        "reached_after": reached[0] if reached else None,
    }


def summary(rows: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Return the means over the seeds."""
    names = ("epochs", "validation_accuracy", "test_accuracy")
    return {
        schedule: {name: statistics.fmean(row[name] for row in rows if row["schedule"] == schedule) for name in names}
        for schedule in ("fixed", "auto")
    }


def show(rows: list[dict[str, Any]], json_path: str | None) -> None:
    """Print a line a run, and the means."""
    people = console(json_path)
    table = Table(caption="reached: after so many epochs, the validation accuracy of the fixed schedule")
    for heading in ("seed", "schedule", "phase 1", "epochs", "reached", "validation accuracy", "test accuracy"):
        table.add_column(heading, justify="left" if heading == "schedule" else "right")
    for row in rows:
        counts = (row["phase1_epochs"], row["epochs"], row["reached_after"] or "never")
        figures = (row["validation_accuracy"], row["test_accuracy"])
        table.add_row(str(row["seed"]), row["schedule"], *map(str, counts), *(f"{figure:.4f}" for figure in figures))
    people.print(table)
    for schedule, means in summary(rows).items():
        people.print(f"{schedule}: " + ", ".join(f"{name} {value:.4g}" for name, value in means.items()))


if __name__ == "__main__":
    main()
