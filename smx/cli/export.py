"""`smx export`: from model.pt to an ONNX file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console

from smx.cli.options import (
    LAYOUTS,
    PRECISIONS,
    Aliased,
    Command,
    OutputPath,
    console,
    data_dir_option,
    json_option,
    progress,
    trust_code_option,
    write_json,
)
from smx.cli.tables import table

if TYPE_CHECKING:
    from smx.export import ExportReport


class Batch(click.ParamType[int | None]):
    """`dynamic`, or a whole number from 1."""

    name = "dynamic|N"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | None:
        """Read it; None is dynamic."""
        if value in (None, "dynamic"):
            return None
        if not str(value).isdecimal() or int(value) < 1:
            self.fail(f"expected dynamic or a whole number from 1, got {value!r}", param, ctx)
        return int(value)


@click.command(cls=Command)
@click.argument("model_path", metavar="MODEL.pt", type=click.Path(path_type=Path))
@click.argument("onnx_path", metavar="MODEL.onnx", type=OutputPath(".onnx"))
@click.option(
    "--layout",
    type=click.Choice(LAYOUTS),
    default="scatter",
    show_default=True,
    help="How mixed layers are written; sorted is the fast one.",
)
@click.option(
    "--batch-size",
    "--batch",
    "batch",
    cls=Aliased,
    type=Batch(),
    default="dynamic",
    show_default=True,
    help="Make the file for one batch size, which can be a little faster.",
)
@click.option(
    "--opset", type=click.IntRange(13, 26), default=18, show_default=True, help="Version of the ONNX operators."
)
@click.option(
    "--precision",
    type=click.Choice(PRECISIONS),
    default="float32",
    show_default=True,
    help="Of weights and arithmetic; float16 and int8 count the predictions that change on the test set.",
)
@click.option("--normalize", is_flag=True, help="Let the model take raw uint8 values, and normalise them itself.")
@data_dir_option
@trust_code_option
@json_option
def export(model_path: Path, onnx_path: str, json_path: str | None, **options: Any) -> None:
    """Write a trained model as one plain ONNX file.

    The file is compared with PyTorch before it is written. int8 is calibrated on the training data of the run.

    \b
    smx export runs/mnist/model.pt mnist.onnx --layout sorted
    """
    from smx.timing.machine import machine
    from smx.workflows.export import export_model

    with progress() as show:
        show("exporting", 0, 0)
        report = export_model(model_path, onnx_path, **options)
    write_json(json_path, {**report.to_dict(), "machine": machine()})
    _show(report, console(json_path))


def _show(report: ExportReport, people: Console) -> None:
    batch = f"batch {report.batch or 'dynamic'}"
    title = f"{report.path}: layout {report.layout}, {batch}, opset {report.opset}, {report.precision}"
    layers = table("mixed layer", ">neurons", "groups", title=f"{title}, {report.bytes:,} bytes")
    for layer in report.layers:
        groups = ", ".join(f"{name} {size}" for name, size in layer.groups.items())
        layers.add_row(layer.name, str(layer.neurons), groups)
    people.print(layers)
    passes = table("pass", ">changes", ">refusals")
    for step in report.passes:
        passes.add_row(step.name, str(step.applied), str(len(step.refusals)))
    people.print(passes)
    lines = [f"{step.name}, {scope}: {reason}" for step in report.passes for scope, reason in step.refusals.items()]
    before, after = (sum(counts.values()) for counts in (report.operators_before, report.operators))
    lines.append(
        f"{before} operators became {after}; largest difference from PyTorch {report.max_abs:.2g};"
        f" {report.seconds:.1f} s"
    )
    if report.predictions:
        share = report.changed / report.predictions
        lines.append(
            f"{report.precision} changes {report.changed} of {report.predictions} test predictions ({share:.3%})"
        )
    if report.advice:
        lines.append(report.advice)
    for line in lines:
        people.print(line, soft_wrap=True)
