"""What a cell of a sweep costs: beside `smx train` of the same, in bfloat16, and as a part of one stacked network.

    python benchmarks/cells.py --json cells.json

1. A cell in a sweep's process, which has its libraries and data already, beside `smx train` as a command.
2. The same cell in bfloat16: its time, and what that changes in accuracy.
3. A step of several networks of one architecture, one after the other, beside one step of them stacked as one network
   (`torch.baddbmm`): all ReLU, which is the best case for stacking. One thread, interleaved, processor time.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import click
import torch
import torch.nn.functional as F
from torch import nn

from smx import models
from smx.cli import options
from smx.cli.output import console, table, write_json
from smx.study.cell import train_cell
from smx.study.grid import Cell, read_grid
from smx.timing.machine import machine

ARCHITECTURES = ((512,), (256, 128), (512, 256, 128), (768, 512, 512, 256, 256, 128), (64, 64, 32, 32, 16, 16))
"""Four of the paper's, and one of small layers."""
STACKED = (3, 7)


def cells(data: str, hidden: Sequence[int], methods: Sequence[str], data_dir: Path | None) -> list[dict[str, Any]]:
    """Train cells in this process, the first one twice, and with `smx train`; return seconds and accuracies."""
    torch.set_num_threads(1)
    settings = {"data": data, "hidden": list(hidden)}
    grid = read_grid("short").with_values([0], settings)
    found = []
    with tempfile.TemporaryDirectory() as folder:
        chosen = [cell for cell in grid.cells() if cell.method in methods]
        timed_cell(chosen[0], Path(folder) / "first", data_dir)  # loads the libraries and the data
        for cell in chosen:
            out = Path(folder) / cell.id
            seconds, accuracy = timed_cell(cell, out, data_dir)
            half = Cell(cell.method, type(cell.config)(**{**vars(cell.config), "amp": "bfloat16"}))
            in_bfloat16, accuracy_in_bfloat16 = timed_cell(half, Path(folder) / half.id, data_dir)
            found.append(
                {
                    "method": cell.method,
                    "seconds": seconds,
                    "command_seconds": command(out / "config.toml", Path(folder) / f"{cell.id}-run", data_dir),
                    "bfloat16_seconds": in_bfloat16,
                    "test_accuracy": accuracy,
                    "bfloat16_test_accuracy": accuracy_in_bfloat16,
                }
            )
    return found


def timed_cell(cell: Cell, out: Path, data_dir: Path | None) -> tuple[float, float]:
    """Return the seconds and the test accuracy of a cell."""
    begun = time.perf_counter()
    result = train_cell(cell, out, data_dir)
    return time.perf_counter() - begun, result["test_accuracy"]


def command(config: Path, out: Path, data_dir: Path | None) -> float:
    """Return the seconds of `smx train` with the same settings."""
    where = ["--data-dir", str(data_dir)] if data_dir else []
    line = [sys.executable, "-m", "smx", "train", "--config", str(config), "--out", str(out), *where]
    begun = time.perf_counter()
    subprocess.run(line, check=True, capture_output=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    return time.perf_counter() - begun


def one_by_one(sizes: Sequence[int], networks: int) -> Callable[[], None]:
    """Return a step of each of several networks."""
    made = [models.mlp(sizes) for _ in range(networks)]
    adams = [torch.optim.Adam(network.parameters(), fused=True) for network in made]
    x, y = torch.randn(networks, 128, sizes[0]), torch.randint(sizes[-1], (networks, 128))

    def step() -> None:
        for network, adam, inputs, labels in zip(made, adams, x, y, strict=True):
            adam.zero_grad()
            F.cross_entropy(network(inputs), labels).backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            adam.step()

    return step


def stacked(sizes: Sequence[int], networks: int) -> Callable[[], None]:
    """Return one step of several networks whose weights are stacked."""
    weights = [nn.Parameter(torch.randn(networks, a, b) * 0.03) for a, b in pairwise(sizes)]
    biases = [nn.Parameter(torch.zeros(networks, 1, b)) for b in sizes[1:]]
    parameters = [*weights, *biases]
    adam = torch.optim.Adam(parameters, fused=True)
    x, y = torch.randn(networks, 128, sizes[0]), torch.randint(sizes[-1], (networks * 128,))

    def step() -> None:
        h = x
        for i, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
            h = torch.baddbmm(bias, h, weight)
            h = h.relu() if i < len(weights) - 1 else h
        adam.zero_grad()
        (F.cross_entropy(h.flatten(0, 1), y) * networks).backward()  # type: ignore[no-untyped-call]
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        norms = torch.stack([gradient.square().sum((1, 2)) for gradient in gradients]).sum(0).sqrt()
        for gradient in gradients:
            gradient.mul_((1 / (norms + 1e-6)).clamp(max=1)[:, None, None])
        adam.step()

    return step


def stacking(hidden: Sequence[int], networks: int, rounds: int) -> dict[str, Any]:
    """Return the processor milliseconds of both steps, and the median of their ratios with its quartiles."""
    sizes = (784, *hidden, 10)
    steps = one_by_one(sizes, networks), stacked(sizes, networks)
    times: list[tuple[float, float]] = []
    for _ in range(rounds + 3):
        seconds = []
        for step in steps:
            begun = time.process_time()
            step()
            seconds.append(1000 * (time.process_time() - begun))
        times.append((seconds[0], seconds[1]))
    separate, together = zip(*times[3:], strict=True)
    ratios = statistics.quantiles([b / a for a, b in times[3:]], n=4)
    return {
        "hidden": list(hidden),
        "networks": networks,
        "one_by_one_ms": statistics.median(separate),
        "stacked_ms": statistics.median(together),
        "ratio": ratios[1],
        "ratio_quartiles": [ratios[0], ratios[2]],
    }


@click.command()
@click.option("--smallest", is_flag=True, help="One tiny cell on the digits and a few rounds.")
@options.data_dir
@options.json
def main(smallest: bool, data_dir: Path | None, json_path: str | None) -> None:
    """Measure what a cell costs."""
    torch.set_num_threads(1)
    data, hidden = ("digits", (8,)) if smallest else ("mnist", (512, 256, 128))
    measured = cells(data, hidden, ("relu",) if smallest else ("smartmixed", "relu"), data_dir)
    steps = [
        stacking(hidden, networks, 2 if smallest else 40)
        for hidden in (ARCHITECTURES[-1:] if smallest else ARCHITECTURES)
        for networks in (STACKED[:1] if smallest else STACKED)
    ]
    content = {"data": data, "hidden": list(hidden), "cells": measured, "stacking": steps, "machine": machine()}
    write_json(json_path, content)
    rows = [[str(row["method"]), *(f"{row[key]:.1f}" for key in row if key.endswith("seconds"))] for row in measured]
    console(json_path).print(table(("method", ">cell, s", ">smx train, s", ">bfloat16, s"), rows))
    rows = [[str(row["hidden"]), str(row["networks"]), f"{row['ratio']:.2f}"] for row in steps]
    console(json_path).print(table(("hidden", ">networks", ">stacked / one by one"), rows))


if __name__ == "__main__":
    main()
