"""Is a network that chooses as good as the best fixed activation? `python benchmarks/choosing.py TABLE... --json PATH`.

The tables are those of sweeps, of the grid `choosing`, say. Networks are compared by test accuracy with the two best
fixed ones of the same architecture and seed: with the one of the best validation accuracy, which a user who trains all
six would take, and with the one of the best test accuracy, which nobody can know, and which gains from its luck. The
mean over architectures and seeds has Student's 95 % interval, in which an architecture counts once; one that a method
or a fixed activation is missing for is left out for that method.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import pandas as pd
from scipy.stats import wilcoxon
from student import half_width

from smx.cli import options
from smx.cli.output import table, write_json
from smx.figures.style import bare, colour, new_figure, save
from smx.paper import PAPER_POOL
from smx.study import table as tables

FIXED = list(PAPER_POOL)
PLACE = ["hidden", "seed"]
SHOWN = 0.01
"""A method that is farther below is not drawn, nor is a single run."""


@click.command()
@click.argument("paths", nargs=-1, required=True, metavar="TABLE...", type=options.PATH)
@click.option("--plot", type=options.PATH, help="Draw the differences to the best fixed activation as PNG.")
@options.json
def main(paths: tuple[Path, ...], plot: Path | None, json_path: str | None) -> None:
    """Compare every method of the tables with the best fixed activation."""
    frame = pd.concat([tables.read(path) for path in paths]).drop_duplicates("cell")
    frame = frame[frame["status"] == "done"]
    content, controls = compared(frame), beside_controls(frame)
    if plot is not None:
        draw(frame, content, plot)
    made = {"tables": [path.name for path in paths], "machines": machines(frame)}
    people = write_json(json_path, {**made, "methods": content, "controls": controls})
    rows = [
        (
            row["method"],
            f"{row['architectures']}, {row['networks']}",
            f"{row['accuracy']:.4f}",
            *(f"{row[name]['mean']:+.4f} +- {row[name]['half_width']:.4f}" for name in ("to_validated", "to_best")),
            "" if row["rank"] is None else f"{row['rank']:.2f}",
        )
        for row in content
    ]
    heads = ("method", ">architectures, networks", ">accuracy", ">to the validated", ">to the best", ">rank of 7")
    people.print(table(heads, rows))
    for row in controls:
        people.print(
            f"{row['method']} is above {row['control']} in {row['above']} of {row['networks']} networks, by"
            f" {row['median']:.4f} (median; at least {row['lowest']:.4f}; Wilcoxon's p = {row['p']:.1g})"
        )


def by_method(frame: pd.DataFrame, value: str) -> pd.DataFrame:
    """Return a value of each run: a row for each architecture and seed, a column for each method."""
    named = frame.assign(hidden=frame["hidden"].map(str))
    return named.pivot_table(index=PLACE, columns="method", values=value)


def compared(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Return a row for each method: how far above the best fixed activation it is, and its rank beside the six."""
    test, validation = by_method(frame, "test_accuracy"), by_method(frame, "validation_accuracy")
    complete = test[FIXED].notna().all(axis=1)
    test, validation = test[complete], validation[complete]
    picked = validation[FIXED].idxmax(axis=1)
    validated = pd.Series({place: test.at[place, name] for place, name in picked.items()}).reindex(test.index)
    best = test[FIXED].max(axis=1)
    found = []
    for method in test.columns:
        own = test[method].dropna()
        above = test.loc[own.index, [name for name in FIXED if name != method]].gt(own, axis=0).sum(axis=1)
        found.append(
            {
                "method": method,
                "architectures": own.index.get_level_values("hidden").nunique(),
                "networks": len(own),
                "accuracy": float(own.mean()),
                "to_validated": interval(own - validated[own.index]),
                "to_best": interval(own - best[own.index]),
                "rank": None if method in FIXED else float(1 + above.mean()),
            }
        )
    return sorted(found, key=lambda row: -row["to_validated"]["mean"])


def machines(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the machines and versions that the runs were made with, each once."""
    found = [{key: value for key, value in row.items() if key != "load"} for row in frame["machine"]]
    return [machine for i, machine in enumerate(found) if machine not in found[:i]]


def draw(frame: pd.DataFrame, content: list[dict[str, Any]], path: Path) -> Path:
    """Draw each method's difference to the best fixed activation: the mean with its interval, and every run."""
    accuracies = by_method(frame, "test_accuracy")
    best = accuracies.dropna(subset=FIXED)[FIXED].max(axis=1)
    rows = [row for row in content if row["architectures"] > 2 and row["to_best"]["mean"] > -SHOWN]
    figure = new_figure(6.6, 0.9 + 0.34 * len(rows))
    axes = figure.subplots()
    for position, row in enumerate(reversed(rows)):
        shade = colour(row["method"], position)
        mean, half = (100 * row["to_best"][key] for key in ("mean", "half_width"))
        runs = 100 * (accuracies[row["method"]] - best).dropna()
        axes.plot(runs, [position + 0.22] * len(runs), "|", color=shade, alpha=0.5, markersize=7)
        axes.errorbar(mean, position, xerr=half, fmt="o", color=shade, markersize=5, linewidth=1.6)
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set_yticks(range(len(rows)), [row["method"] for row in reversed(rows)])
    axes.set_xlim(-100 * SHOWN, 70 * SHOWN)
    axes.set_xlabel("points of test accuracy above the best of six")
    bare(axes)
    return save(figure, path)


def beside_controls(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Return a row for each method that has a control: other choices in phase 2 than the learned ones, same seeds."""
    test = by_method(frame, "test_accuracy")
    found = []
    for control in test.columns:
        method = control.rpartition("_")[0]
        difference = (test[method] - test[control]).dropna() if method in test.columns else pd.Series(dtype=float)
        if len(difference) > 2:
            found.append(
                {
                    "method": method,
                    "control": control,
                    "networks": len(difference),
                    "above": int((difference > 0).sum()),
                    "median": float(difference.median()),
                    "lowest": float(difference.min()),
                    "p": float(wilcoxon(difference).pvalue),
                }
            )
    return found


def interval(differences: pd.Series) -> dict[str, float]:
    """Return the mean over the architectures, and half the width of its 95 % interval."""
    each = differences.groupby("hidden").mean()
    return {"mean": float(each.mean()), "half_width": half_width(each)}


if __name__ == "__main__":
    main()
