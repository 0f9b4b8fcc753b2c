"""What exporting a large mixed network costs, beside PyTorch's plain export of the same one with ReLU.

    python benchmarks/large_export.py --megabytes 300 --json large-export.json

Each export runs in a process of its own, in turn; its time does not count making the network, its memory is the most
that the process ever held.
"""

from __future__ import annotations

import multiprocessing
import resource
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from statistics import median
from typing import Any

import click
from rich.table import Table

from smx.cli.options import console, json_option, write_json

WIDTH = 4096


def network(megabytes: int, mixed: bool) -> Any:
    """Return a multilayer perceptron with about so many megabytes of float32 weights."""
    import torch
    from torch import nn

    import smx
    from smx.models import mlp

    torch.manual_seed(0)
    hidden = max(2, round(megabytes * 1e6 / 4 / WIDTH**2) + 1)
    sizes = (784, *[WIDTH] * hidden, 10)
    make = (lambda _: smx.Mixed(torch.randint(6, (WIDTH,)))) if mixed else (lambda _: nn.ReLU())
    return mlp(sizes, make).eval()


def export(kind: str, megabytes: int) -> dict[str, float]:
    """Export once; return seconds, and the peak of the process's memory in megabytes."""
    import torch

    from smx.export import export_onnx

    net = network(megabytes, mixed=kind != "plain")
    example = torch.zeros(2, 784)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        started = time.perf_counter()
        if kind == "plain":
            dynamic = ({0: torch.export.Dim("batch")},)
            torch.onnx.export(
                net, (example,), path, dynamo=True, dynamic_shapes=dynamic, external_data=False, verbose=False
            )
        else:
            export_onnx(net, path, example_input=example, layout=kind)
        seconds = time.perf_counter() - started
        size = path.stat().st_size / 1e6
    return {"seconds": seconds, "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, "file_mb": size}


@click.command()
@click.option("--megabytes", default=300, show_default=True, help="Of weights.")
@click.option("--repeats", default=3, show_default=True, help="The medians are reported.")
@json_option
def main(megabytes: int, repeats: int, json_path: str | None) -> None:
    """Compare time and memory."""
    from smx.timing.machine import machine

    runs: dict[str, list[dict[str, float]]] = {"plain": [], "scatter": [], "sorted": []}
    for _ in range(repeats):
        for kind, done in runs.items():
            with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
                done.append(process.submit(export, kind, megabytes).result())
    results = {
        kind: {key: median(run[key] for run in done) for key in ("seconds", "peak_mb", "file_mb")}
        for kind, done in runs.items()
    }
    table = Table(title=f"exporting a multilayer perceptron of {megabytes} MB, medians of {repeats}")
    for heading in ("", "seconds", "of plain", "peak MB", "of plain", "file MB"):
        table.add_column(heading, justify="left" if not heading else "right")
    plain = results["plain"]
    for kind, row in results.items():
        seconds, peak = row["seconds"] / plain["seconds"], row["peak_mb"] / plain["peak_mb"]
        table.add_row(
            kind, f"{row['seconds']:.1f}", f"{seconds:.2f}", f"{row['peak_mb']:.0f}", f"{peak:.2f}",
            f"{row['file_mb']:.0f}",
        )  # fmt: skip
    console(json_path).print(table)
    write_json(json_path, {"megabytes": megabytes, "repeats": repeats, "results": results, "machine": machine()})


if __name__ == "__main__":
    main()
