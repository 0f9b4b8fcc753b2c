"""How small a difference does `smx bench` detect? `python benchmarks/resolution.py --json PATH`.

A ReLU network is measured many times beside a copy of its file, and beside a network that takes about 5 % longer,
because its first layer is wider. One long measurement first finds out how much wider. The interval of the copy should
contain 1; that of the slower network should not.
"""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
from rich.progress import track
from rich.table import Table

from smx.cli import options
from smx.cli.output import console, logs, write_json
from smx.runtime.latency.measure import LatencyReport, measure_latency
from smx.subprocesses import in_subprocess
from smx.timing.report import Latency

SIZES: tuple[int, ...] = (784, 768, 512, 512, 256, 256, 128, 10)
SLOWER = 1.05
WIDENED: tuple[int, ...] = (16, 32, 48, 64, 80, 96)
"""Neurons that are added to the first layer; 16 are one step of the matrix kernel."""


@click.command()
@click.option("--batch-sizes", type=options.WIDTHS, default="1,16,128", show_default=True, help="Examples a run.")
@click.option("--repeats", type=click.IntRange(min=1), default=20, show_default=True, metavar="N")
@click.option("--smallest", is_flag=True, help="Small networks, once: only to see that this works.")
@options.json
def main(batch_sizes: tuple[int, ...], repeats: int, smallest: bool, json_path: str | None) -> None:
    """Repeat a bench with its default settings, on one thread."""
    found, sizes, widened, rounds = [], SIZES, WIDENED, {"search": 200, "repeat": 60}
    if smallest:
        batch_sizes, repeats, sizes, widened, rounds = (1,), 1, (784, 32, 10), (16,), {"search": 10, "repeat": 10}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = in_subprocess(export, folder, sizes, widened)
        for size in batch_sizes:
            logs().print(f"batch {size}: searching the network that takes {SLOWER:g} times as long ...")
            search = measure_latency(files, baseline="+0", batch_sizes=[size], rounds=rounds["search"], memory=False)
            slower = min(search.results[1:], key=lambda row: abs(row.ratio - SLOWER))
            copy = folder / "copy.onnx"
            shutil.copy(files["+0"], copy)
            candidates = {"file": files["+0"], "copy": copy, "slower": files[slower.name]}
            reports = [
                measure_latency(
                    candidates, baseline="file", batch_sizes=[size], rounds=rounds["repeat"], memory=False, seed=seed
                )
                for seed in track(range(repeats), console=logs(), disable=not logs().is_terminal)
            ]
            found.append(summary(size, slower, reports))
    machine = reports[-1].machine
    show(found, json_path)
    write_json(json_path, {"sizes": sizes, "repeats": repeats, "batch_sizes": found, "machine": machine})


def export(folder: Path, sizes: tuple[int, ...], widened: tuple[int, ...]) -> dict[str, Path]:
    """Write the network, and those with a wider first layer; return the files by the number of added neurons."""
    import torch
    from torch import nn

    from smx.export import export_onnx
    from smx.models import mlp

    files = {}
    for added in (0, *widened):
        torch.manual_seed(0)
        network = mlp((sizes[0], sizes[1] + added, *sizes[2:]), lambda _: nn.ReLU())
        files[f"+{added}"] = folder / f"{added}.onnx"
        export_onnx(network, files[f"+{added}"], example_input=torch.zeros(1, sizes[0]))
    return files


def summary(size: int, slower: Latency, reports: list[LatencyReport]) -> dict[str, Any]:
    """Count how often the intervals are right."""
    rows = {
        name: [row for report in reports for row in report.results if row.name == name] for name in ("copy", "slower")
    }
    return {
        "batch_size": size,
        "slower": asdict(slower),
        "copy_contains_1": sum(row.ratio_low <= 1 <= row.ratio_high for row in rows["copy"]),
        "slower_told_apart": sum(row.ratio_low > 1 for row in rows["slower"]),
        "warned": sum(bool(report.warnings) for report in reports),
        "repeats": [
            {name: [row.ratio, row.ratio_low, row.ratio_high] for name, row in (("copy", copy), ("slower", other))}
            for copy, other in zip(rows["copy"], rows["slower"], strict=True)
        ],
    }


def show(found: list[dict[str, Any]], json_path: str | None) -> None:
    """Print the counts."""
    table = Table()
    for heading in ("batch", "repeats", "copy: interval contains 1", "slower by", "told apart", "with a warning"):
        table.add_column(heading, justify="right")
    for entry in found:
        table.add_row(
            str(entry["batch_size"]),
            str(len(entry["repeats"])),
            str(entry["copy_contains_1"]),
            f"{entry['slower']['ratio'] - 1:.1%}",
            str(entry["slower_told_apart"]),
            str(entry["warned"]),
        )
    console(json_path).print(table)


if __name__ == "__main__":
    main()
