"""How well do prices predict latency? `python benchmarks/prices.py --json PATH` measures random mixed networks.

Prices are measured first, unless a price file is given. Then random networks, which prices have not seen, are exported
in the layout `sorted`, and with ReLU, and timed in turn. An error is the distance of the predicted seconds from the
median of the measured ones, relative to these.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import click
import numpy as np
from random_networks import INPUTS, OUTPUTS, Drawn, draw, export

from smx.cli import options
from smx.cli.output import logs, table, write_json
from smx.prices import Prices, load_prices
from smx.runtime.tune.forms import time_files
from smx.subprocesses import in_subprocess
from smx.timing.machine import machine
from smx.workflows.price import price

BATCH_SIZES = (1, 16, 128)


@click.command()
@click.option(
    "--price", "path", type=options.PATH, metavar="FILE", help="Prices of this machine; measured if not given."
)
@click.option("--networks", default=30, show_default=True, metavar="N")
@click.option("--batch-sizes", type=options.BATCH_SIZES, default=",".join(map(str, BATCH_SIZES)), show_default=True)
@click.option("--seconds", default=120.0, show_default=True, help="About how long the networks are timed.")
@click.option("--seed", default=0, show_default=True, help="Of the networks.")
@click.option("--smallest", is_flag=True, help="One small network and the prices of smx: only to see that this works.")
@options.json
def main(
    path: Path | None,
    networks: int,
    batch_sizes: tuple[int, ...],
    seconds: float,
    seed: int,
    smallest: bool,
    json_path: str | None,
) -> None:
    """Predict the latency of random networks, and measure it."""
    before = machine()
    if smallest:
        networks, seconds, batch_sizes = 1, 0.0, (1, 4)
    logs().print("prices ...")
    prices = load_prices(path) if path or smallest else price()
    drawn = [draw(seed + i, smallest=smallest) for i in range(networks)]
    with tempfile.TemporaryDirectory() as folder:
        logs().print("exporting ...")
        files = in_subprocess(export, Path(folder), drawn, ["sorted"])
        logs().print("measuring ...")
        flat = {f"{i} {name}": path for i, paths in enumerate(files) for name, path in paths.items()}
        timings = time_files(flat, batch_sizes, provider="cpu", threads=1, seconds=seconds)
    rows = []
    for i, network in enumerate(drawn):
        for size in batch_sizes:
            for name in ("sorted", "relu"):
                measured = 1e-6 * float(np.median(timings.medians(f"{i} {name}", size)))
                predicted = predict(prices, network, name, size)
                error = predicted / measured - 1
                rows.append(
                    {"network": i, "name": name, "batch_size": size, "measured": measured, "predicted": predicted}
                    | {"error": error}
                )
    summary = {
        f"{name}, batch {size}": median([row for row in rows if (row["name"], row["batch_size"]) == (name, size)])
        for name in ("sorted", "relu")
        for size in batch_sizes
    }
    summary["sorted"] = median([row for row in rows if row["name"] == "sorted"])
    content: dict[str, Any] = {"networks": [network.layers for network in drawn], "rows": rows, "median_error": summary}
    people = write_json(json_path, {**content, "machine": before})
    people.print(table(("", ">median error"), [(name, f"{error:.1%}") for name, error in summary.items()]))


def predict(prices: Prices, network: Drawn, name: str, batch_size: int) -> float:
    """Predict the seconds of a network, or of the same one with ReLU."""
    layers = network.layers
    if name == "relu":
        layers = tuple({"relu": sum(groups.values())} for groups in layers)
    return prices.predict(layers, inputs=INPUTS, outputs=OUTPUTS, batch_size=batch_size)


def median(rows: list[dict[str, Any]]) -> float:
    """Return the median of the errors without their signs."""
    return float(np.median([abs(row["error"]) for row in rows]))


if __name__ == "__main__":
    main()
