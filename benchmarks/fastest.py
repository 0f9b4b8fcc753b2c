"""Is `fastest` never slower than `sorted` and `scatter`? `python benchmarks/fastest.py --json PATH` measures networks.

Random networks, or a MODEL.pt of your own, are exported in the three layouts and with ReLU; the search of `fastest` is
that of `smx export`. Then the four files are timed in turn, independently of the search, with one thread. `fastest` is
slower beyond noise where the whole interval of its ratio is above 1.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import click
from random_networks import draw, export

from smx.cli import options
from smx.cli.output import logs, table, write_json
from smx.runtime.latency.measure import measure_latency
from smx.runtime.session import Session
from smx.runtime.tune.forms import Ratios, mean, ratios_of
from smx.subprocesses import in_subprocess
from smx.timing.machine import machine
from smx.workflows.candidates import export_candidates

LAYOUTS = ("sorted", "scatter", "fastest")
OTHERS = ("sorted", "scatter", "relu")


@click.command()
@click.argument("paths", nargs=-1, metavar="[MODEL.pt...]", type=options.PATH)
@click.option("--networks", default=20, show_default=True, metavar="N", help="Random ones, if no MODEL.pt is given.")
@click.option("--batch-sizes", type=options.BATCH_SIZES, default=options.USUAL_BATCH_SIZES, show_default=True)
@click.option("--seconds", default=60.0, show_default=True, help="Of each search of random networks.")
@click.option("--rounds", default=60, show_default=True, metavar="N", help="Of each measurement, at least.")
@click.option("--seed", default=1000, show_default=True, help="Of the networks.")
@click.option("--smallest", is_flag=True, help="One small network: only to see that this works.")
@options.json
def main(
    paths: tuple[Path, ...],
    networks: int,
    batch_sizes: tuple[int, ...],
    seconds: float,
    rounds: int,
    seed: int,
    smallest: bool,
    json_path: str | None,
) -> None:
    """Export, measure, and say whether `fastest` is ever slower."""
    before, found = machine(), []
    if smallest:
        networks, seconds, rounds, batch_sizes = 1, 0.0, 3, (1, 4)
    count = len(paths) or networks
    for i in range(count):
        logs().print(f"network {i + 1} of {count} ...")
        with tempfile.TemporaryDirectory() as folder:
            if paths:
                name, files = (
                    str(paths[i]),
                    in_subprocess(export_candidates, paths[i], Path(folder), LAYOUTS, ("relu",)),
                )
            else:
                drawn = draw(seed + i, smallest=smallest)
                name = "-".join(map(str, drawn.sizes))
                (files,) = in_subprocess(export, Path(folder), [drawn], list(LAYOUTS), seconds)
            found.append({"network": name, **one(files, batch_sizes, rounds)})
    slower = {
        other: [(row["network"], size) for row in found for size, (_, low, _) in row[other].items() if low > 1]
        for other in OTHERS
    }
    content = {"networks": found, "slower": slower, "batch_sizes": batch_sizes, "rounds": rounds, "machine": before}
    people = write_json(json_path, content)
    headings = ("network", "taken", *(f">to {other}" for other in OTHERS))
    rows = [(row["network"], row["taken"], *(f"{mean(row[other]):.3f}" for other in OTHERS)) for row in found]
    people.print(table(headings, rows, caption="time of fastest, geometric mean over the batch sizes"))
    for other in OTHERS:
        people.print(f"slower than {other} beyond noise: {len(slower[other])} of {len(found) * len(batch_sizes)}")


def one(files: dict[str, Path], batch_sizes: tuple[int, ...], rounds: int) -> dict[str, Any]:
    """Measure the files; return what the search chose, and the ratios of `fastest` to each of the others."""
    info = Session(files["fastest"]).info
    assert info is not None
    report = measure_latency(files, baseline="relu", batch_sizes=batch_sizes, rounds=rounds, memory=False)
    ratios: dict[str, Ratios] = {other: ratios_of(report.timings, "fastest", other, batch_sizes) for other in OTHERS}
    groups = {layer.name: layer.groups for layer in info.layers}
    (taken,) = (line for line in info.chosen if line.startswith("taken: "))
    return {
        "taken": taken.partition(";")[0].removeprefix("taken: "),
        "chosen": info.chosen,
        "groups": groups,
        **ratios,
        "warnings": report.warnings,
    }


if __name__ == "__main__":
    main()
