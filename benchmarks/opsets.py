"""Does the opset change the latency? `python benchmarks/opsets.py --json PATH` asks ONNX Runtime.

Perceptrons of one activation each, a mixed one in the layout `sorted`, and a convolutional network, at several opsets
in turn. The ratios refer to the first opset; it runs a second time under another name, and that column tells the noise.

An older ONNX Runtime can be asked as well: `pip install --no-deps --target old onnxruntime==1.23.2`, then the same with
`PYTHONPATH=old` and `--opsets` that it knows.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.table import Table

from smx.cli import options
from smx.cli.output import console, logs, write_json
from smx.paper import LARGEST
from smx.runtime.latency.measure import LatencyReport, measure_latency
from smx.subprocesses import in_subprocess

if TYPE_CHECKING:
    from torch import nn

SMALLEST = (784, 24, 16, 10)
"""The perceptron of `--smallest`."""


@click.command()
@click.option(
    "--opsets", type=options.WIDTHS, default="18,13,15,17,21,22,26", show_default=True, help="The baseline first."
)
@click.option("--batch-sizes", type=options.WIDTHS, default="1,128", show_default=True, help="Examples a run.")
@click.option("--rounds", type=click.IntRange(min=1), default=100, show_default=True, metavar="N")
@click.option(
    "--smallest", is_flag=True, help="Time two small networks at two opsets once, to see that everything runs."
)
@options.json
def main(
    opsets: tuple[int, ...], batch_sizes: tuple[int, ...], rounds: int, smallest: bool, json_path: str | None
) -> None:
    """Time each network at each opset, on one thread."""
    sizes = SMALLEST if smallest else LARGEST
    if smallest:
        opsets, batch_sizes, rounds = opsets[:2], (2,), 1
    reports = {}
    with tempfile.TemporaryDirectory() as folder:
        # The process that measures never loads torch, whose threads would disturb it.
        networks = in_subprocess(export, Path(folder), opsets, sizes)
        for network, files in networks.items():
            logs().print(f"measuring {network} ...")
            reports[network] = measure_latency(
                files, baseline=str(opsets[0]), batch_sizes=batch_sizes, rounds=rounds, memory=False
            )
    for batch_size in batch_sizes:
        show(reports, batch_size, json_path)
    write_json(json_path, {"sizes": sizes, "networks": {name: report.to_dict() for name, report in reports.items()}})


def export(folder: Path, opsets: tuple[int, ...], sizes: tuple[int, ...]) -> dict[str, dict[str, Path]]:
    """Write each network at each opset; return the files by network and opset."""
    import onnx
    import torch

    import smx
    from smx.export import export_onnx
    from smx.export.opsets import convert

    torch.manual_seed(0)
    pools = {name: (name,) for name in ("leaky_relu", "elu", "selu", "relu")} | {"mixed": smx.PAPER_POOL}
    networks = {name: (perceptron(pool, sizes), torch.zeros(1, sizes[0])) for name, pool in pools.items()}
    networks["cnn"] = convolutional(), torch.zeros(1, 3, 32, 32)
    if sizes == SMALLEST:
        networks = {name: networks[name] for name in ("mixed", "cnn")}
    files: dict[str, dict[str, Path]] = {}
    for network, (module, example) in networks.items():
        captured = folder / f"{network}.onnx"
        export_onnx(module, captured, example_input=example, layout="sorted", opset=18)
        proto = onnx.load(captured)
        proto.ClearField("metadata_props")  # the digest in it is that of this file
        files[network] = {}
        for name, opset in [*((str(opset), opset) for opset in opsets), (f"{opsets[0]} again", opsets[0])]:
            files[network][name] = path = folder / f"{network}-{name}.onnx"
            path.write_bytes(convert(proto, opset).SerializeToString())
    return files


def perceptron(pool: tuple[str, ...], sizes: tuple[int, ...]) -> nn.Module:
    """Build a network whose neurons have random activations of the pool."""
    import torch

    import smx
    from smx.models import mlp

    return mlp(sizes, lambda layer: smx.Mixed(torch.randint(len(pool), (sizes[layer],)), pool))


def convolutional() -> nn.Module:
    """Build a network of what ONNX Runtime fuses and lays out by blocks of channels: Conv, activations, pooling."""
    from torch import nn

    return nn.Sequential(
        nn.Sequential(nn.Conv2d(3, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        nn.Sequential(nn.Conv2d(32, 64, 3, padding=1), nn.LeakyReLU(), nn.AvgPool2d(2)),
        nn.Sequential(nn.Conv2d(64, 64, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1)),
        nn.Sequential(nn.Flatten(), nn.Linear(64, 10)),
    )


def show(reports: dict[str, LatencyReport], batch_size: int, json_path: str | None) -> None:
    """Print the ratios at one batch size."""
    table = Table(title=f"batch {batch_size}: ratio to the first opset, and its quartiles")
    table.add_column("network")
    for name in dict.fromkeys(row.name for report in reports.values() for row in report.results):
        table.add_column(name, justify="right")
    for network, report in reports.items():
        rows = [row for row in report.results if row.batch_size == batch_size]
        table.add_row(network, *(f"{row.ratio:.2f}\n{row.ratio_low:.2f}-{row.ratio_high:.2f}" for row in rows))
    console(json_path).print(table)


if __name__ == "__main__":
    main()
