"""`smx export`: from model.pt to an ONNX file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.table import Table

from smx.cli.options import Command, OutputPath, console, json_option, write_json

if TYPE_CHECKING:
    from smx.modelfile import SavedModel


@click.command(cls=Command)
@click.argument("model_path", metavar="MODEL.pt", type=click.Path(path_type=Path))
@click.argument("onnx_path", metavar="MODEL.onnx", type=OutputPath(".onnx"))
@click.option(
    "--layout",
    default="scatter",
    show_default=True,
    metavar="NAME",
    help="How mixed layers stand in the graph: scatter or sorted.",
)
@click.option("--opset", default=18, show_default=True, metavar="N", help="Version of the ONNX operators, 18 to 21.")
@json_option
def export(model_path: Path, onnx_path: str, layout: str, opset: int, json_path: str | None) -> None:
    """Write a trained model as one plain ONNX file.

    The file is compared with PyTorch before it is written.

    \b
    smx export runs/mnist/model.pt mnist.onnx
    """
    from smx.export import export_onnx
    from smx.modelfile import load_model
    from smx.runtime.machine import machine

    model = load_model(model_path)
    report = export_onnx(
        model.build(),
        onnx_path,
        example_input=example_input(model),
        layout=layout,
        opset=opset,
        describe=description(model),
    )
    people = console(json_path)
    table = Table(title=f"{report.path}: layout {report.layout}, opset {report.opset}, {report.bytes:,} bytes")
    table.add_column("mixed layer")
    table.add_column("neurons", justify="right")
    table.add_column("groups")
    for layer in report.layers:
        groups = ", ".join(f"{name} {size}" for name, size in layer.groups.items())
        table.add_row(layer.name, str(layer.neurons), groups)
    people.print(table)
    people.print(
        f"{sum(report.operators.values())} operators; largest difference from PyTorch {report.max_abs:.2g};"
        f" {report.seconds:.1f} s"
    )
    for scope, reason in report.refusals.items():
        people.print(f"{scope} stays scatter: {reason}", soft_wrap=True)
    if report.layout == "scatter" and report.operators.get("ScatterElements"):
        people.print("--layout sorted needs no indices at run time; compare the two with smx bench", soft_wrap=True)
    write_json(json_path, {**report.to_dict(), "machine": machine()})


def example_input(model: SavedModel) -> Any:
    """Return one example of the shape that a saved model takes."""
    import torch

    return torch.zeros(1, model.sizes[0])


def description(model: SavedModel) -> dict[str, Any]:
    """Return what the ONNX metadata should say of a saved model."""
    return {
        "architecture": model.architecture,
        "pool": model.pool,
        "class_names": model.data["class_names"],
        "sample_shape": model.data["sample_shape"],
        "maximum": model.data["maximum"],
    }
