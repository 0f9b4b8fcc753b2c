"""`smx export`: from model.pt to an ONNX file."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.table import Table

from smx.cli.options import (
    Command,
    OutputPath,
    console,
    data_dir_option,
    json_option,
    logs,
    trust_code_option,
    write_json,
)

if TYPE_CHECKING:
    from smx.export import ExportReport

CALIBRATION = 10_000
"""So many training examples at most calibrate int8."""


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
    default="scatter",
    show_default=True,
    metavar="NAME",
    help="How mixed layers stand in the graph: scatter or sorted.",
)
@click.option(
    "--batch",
    type=Batch(),
    default="dynamic",
    show_default=True,
    help="Make the file for one batch size, which can be a little faster.",
)
@click.option("--opset", default=18, show_default=True, metavar="N", help="Version of the ONNX operators, 13 to 26.")
@click.option(
    "--precision",
    default="float32",
    show_default=True,
    metavar="NAME",
    help="float32, float16 or int8; counts the predictions that change on the test set.",
)
@click.option("--normalize", is_flag=True, help="Let the model take raw uint8 values, and normalise them itself.")
@data_dir_option
@trust_code_option
@json_option
def export(
    model_path: Path,
    onnx_path: str,
    layout: str,
    batch: int | None,
    opset: int,
    precision: str,
    normalize: bool,
    data_dir: Path | None,
    trust_code: bool,
    json_path: str | None,
) -> None:
    """Write a trained model as one plain ONNX file.

    The file is compared with PyTorch before it is written. int8 is calibrated on the training data of the run.

    \b
    smx export runs/mnist/model.pt mnist.onnx --layout sorted
    """
    from smx import data as datasets
    from smx.export import export_onnx
    from smx.modelfile import load_model
    from smx.timing.machine import machine

    model = load_model(model_path, trust_code=trust_code)
    dataset = datasets.load(model.data["name"], data_dir) if precision in ("float16", "int8") else None
    notes = logs()
    with notes.status("exporting") if notes.is_terminal else nullcontext():
        report = export_onnx(
            model.build(raw=normalize),
            onnx_path,
            example_input=model.example_input(raw=normalize),
            layout=layout,
            batch=batch,
            opset=opset,
            precision=precision,
            calibration=model.examples(dataset, dataset.train.x[:CALIBRATION], raw=normalize) if dataset else None,
            evaluation=model.examples(dataset, dataset.test.x, raw=normalize) if dataset else None,
            describe=model.description(),
        )
    _show(report, json_path)
    write_json(json_path, {**report.to_dict(), "machine": machine()})


def _show(report: ExportReport, json_path: str | None) -> None:
    people = console(json_path)
    batch = f"batch {report.batch or 'dynamic'}"
    title = f"{report.path}: layout {report.layout}, {batch}, opset {report.opset}, {report.precision}"
    layers = Table(title=f"{title}, {report.bytes:,} bytes")
    layers.add_column("mixed layer")
    layers.add_column("neurons", justify="right")
    layers.add_column("groups")
    for layer in report.layers:
        groups = ", ".join(f"{name} {size}" for name, size in layer.groups.items())
        layers.add_row(layer.name, str(layer.neurons), groups)
    people.print(layers)
    passes = Table()
    passes.add_column("pass")
    passes.add_column("changes", justify="right")
    passes.add_column("had to leave", justify="right")
    for step in report.passes:
        passes.add_row(step.name, str(step.applied), str(len(step.refusals)))
    people.print(passes)
    for step in report.passes:
        for scope, reason in step.refusals.items():
            people.print(f"{step.name}, {scope}: {reason}", soft_wrap=True)
    before, after = (sum(counts.values()) for counts in (report.operators_before, report.operators))
    people.print(
        f"{before} operators became {after}; largest difference from PyTorch {report.max_abs:.2g};"
        f" {report.seconds:.1f} s",
        soft_wrap=True,
    )
    if report.predictions:
        people.print(
            f"{report.precision} changes {report.changed} of {report.predictions} test predictions"
            f" ({report.changed / report.predictions:.3%})",
            soft_wrap=True,
        )
    if report.advice:
        people.print(report.advice, soft_wrap=True)
