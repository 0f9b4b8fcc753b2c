"""What exporting a large mixed network costs, beside PyTorch's plain export of the same one with ReLU.

    python benchmarks/large_export.py --megabytes 300 --json large-export.json

Each export runs in a process of its own, in turn. The time is that of the export, without making the network; the
memory is the peak of its processes.
"""

from __future__ import annotations

import resource
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import click
from rich.table import Table

from smx.cli import options
from smx.cli.output import console, write_json
from smx.subprocesses import in_subprocess

WIDTH = 4096


def network(megabytes: int, width: int, mixed: bool) -> Any:
    """Return a multilayer perceptron with about this many megabytes of float32 weights in layers of a width."""
    import torch
    from torch import nn

    import smx
    from smx.models import mlp

    torch.manual_seed(0)
    hidden = max(2, round(megabytes * 1e6 / 4 / width**2) + 1)
    sizes = (784, *[width] * hidden, 10)
    make = (lambda _: smx.Mixed(torch.randint(6, (width,)))) if mixed else (lambda _: nn.ReLU())
    return mlp(sizes, make).eval()


def export(kind: str, megabytes: int, width: int) -> dict[str, float]:
    """Export once; return the seconds, the peak of memory and the size of the file in megabytes.

    The peak is that of this process, plus that of the process that tries the file, which run at the same time.
    """
    import torch

    from smx.export import export_onnx

    net = network(megabytes, width, mixed=kind != "plain")
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
    peak = sum(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)) / 1024
    return {"seconds": seconds, "peak_mb": peak, "file_mb": size}


@click.command()
@click.option("--megabytes", default=300, show_default=True, help="Of weights.")
@click.option("--repeats", default=3, show_default=True, help="The medians are reported.")
@click.option("--smallest", is_flag=True, help="Export a small network once, to see that everything runs.")
@options.json
def main(megabytes: int, repeats: int, smallest: bool, json_path: str | None) -> None:
    """Compare time and memory."""
    from smx.timing.machine import machine

    width = 64 if smallest else WIDTH
    if smallest:
        megabytes, repeats = 0, 1
    kinds = ("plain", "sorted") if smallest else ("plain", "scatter", "sorted")
    runs: dict[str, list[dict[str, float]]] = {kind: [] for kind in kinds}
    for _ in range(repeats):
        for kind, done in runs.items():
            done.append(in_subprocess(export, kind, megabytes, width))
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
