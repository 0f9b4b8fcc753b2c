"""`smx export`: from model.pt to an ONNX file."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import click

from smx import limits
from smx.cli import options
from smx.cli.output import table, write_json
from smx.cli.progress import progress


class Batch(click.IntRange):
    """`dynamic`, which becomes None, or a whole number from 1."""

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:
        """Show both."""
        return "dynamic|N"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Read it."""
        return None if value == "dynamic" else super().convert(value, param, ctx)


class Axis(click.ParamType[tuple[str, int, str]]):
    """An axis and its name, as `input:1=time`."""

    name = "axis"

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:
        """Show the form."""
        return "INPUT:AXIS=NAME"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, int, str]:
        """Read it."""
        found = re.fullmatch(r"(.+):(-?\d{1,4})=(.+)", value)
        if not found:
            self.fail(f"expected INPUT:AXIS=NAME, as in input:1=time, got {value!r}", param, ctx)
        return found[1], int(found[2]), found[3]


def merged(axes: tuple[tuple[str, int, str], ...]) -> dict[str, dict[int, str]]:
    """Return the names of the axes, by input and axis."""
    found: dict[str, dict[int, str]] = {}
    for key, axis, name in axes:
        if found.setdefault(key, {}).setdefault(axis, name) != name:
            raise click.BadParameter(f"{key}:{axis} has two names, {found[key][axis]} and {name}")
    return found


@click.command(cls=options.Command)
@click.argument("model_path", metavar="MODEL.pt", type=options.PATH)
@click.argument("onnx_path", metavar="MODEL.onnx", type=options.OutputPath(".onnx"))
@click.option(
    "--layout",
    type=click.Choice((*options.LAYOUTS, options.FASTEST)),
    default="scatter",
    help="How mixed layers are written; sorted is fast, fastest is searched on this machine for a minute.",
)
@click.option(
    "--for-batch",
    type=options.BATCH_SIZE,
    metavar="N",
    help="Search fastest for this many examples a run.  [default: 1, 16, 128 and 1024, or what --batch says]",
)
@click.option(
    "--measure/--no-measure", default=True, help="Search fastest by timing the forms, or let the price file decide."
)
@click.option(
    "--price",
    type=options.PATH,
    metavar="FILE.json",
    help="What decides without measuring; smx price writes it.  [default: the one that comes with smx]",
)
@click.option(
    "--batch-size",
    "--batch",
    "batch",
    type=Batch(1, limits.BATCH),
    default="dynamic",
    help="Make the file for one batch size, which can be a little faster.",
)
@click.option(
    "--dynamic",
    type=Axis(),
    multiple=True,
    callback=lambda ctx, param, axes: merged(axes),
    help="Let an axis have any length: input:2=height. Several for several axes.",
)
@click.option("--input-name", "input_names", multiple=True, metavar="NAME", help="Of the file's input.")
@click.option("--output-name", "output_names", multiple=True, metavar="NAME", help="Of the file's output.")
@click.option("--opset", type=click.IntRange(13, 26), default=18, help="Version of the ONNX operators.")
@click.option(
    "--precision",
    type=click.Choice(options.PRECISIONS),
    default="float32",
    help="Of weights and arithmetic; float16 and int8 count the predictions that change on the test set.",
)
@click.option("--normalize", is_flag=True, help="Let the model take raw uint8 values, and normalise them itself.")
@click.option(
    "--triton",
    type=options.FOLDER,
    metavar="DIR",
    cls=options.Option,
    group="Other engines",
    help="Also write NAME/config.pbtxt and NAME/1/model.onnx into DIR, a model repository of Triton.",
)
@click.option(
    "--triton-device",
    type=click.Choice(options.DEVICES),
    default="cpu",
    cls=options.Option,
    group="Other engines",
    help="What Triton and KServe run it on.",
)
@click.option(
    "--kserve",
    type=options.OutputPath(".yaml"),
    metavar="FILE.yaml",
    cls=options.Option,
    group="Other engines",
    help="Also write the manifest of a KServe InferenceService.",
)
@click.option(
    "--kserve-uri",
    metavar="URI",
    cls=options.Option,
    group="Other engines",
    help="Where the cluster will find DIR once you have uploaded it, as s3://bucket/models.",
)
@options.data_dir
@options.trust_code
@options.json
def export(model_path: Path, onnx_path: str, json_path: str | None, **given: Any) -> None:
    """Write a trained model as one plain ONNX file.

    The file is compared with PyTorch before it is written. int8 is calibrated on the training data of the run.

    \b
    smx export runs/mnist/model.pt mnist.onnx --layout sorted
    smx export runs/mnist/model.pt mnist.onnx --layout fastest --for-batch 16
    smx export net.pt net.onnx --dynamic input:2=height --dynamic input:3=width
    smx export runs/mnist/model.pt mnist.onnx --triton models --kserve mnist.yaml --kserve-uri s3://bucket/models
    """
    from smx.timing.machine import machine
    from smx.workflows.export_model import export_model

    with progress() as show:
        show("exporting" if given["layout"] != options.FASTEST else "searching the fastest forms", 0, 0)
        report = export_model(model_path, onnx_path, **given)
    people = write_json(json_path, {**report.to_dict(), "machine": machine()})
    layers = (
        (layer.name, str(layer.neurons), ", ".join(f"{name} {size}" for name, size in layer.groups.items()))
        for layer in report.layers
    )
    how = f"layout {report.layout}, batch {report.batch or 'dynamic'}, opset {report.opset}, {report.precision}"
    title = f"{report.path}: {how}, {report.bytes:,} bytes"
    people.print(table(("mixed layer", ">neurons", "groups"), layers, title=title))
    passes = ((step.name, str(step.applied), str(len(step.refusals))) for step in report.passes)
    people.print(table(("pass", ">changes", ">refusals"), passes))
    for line in report.fastest.reasons() if report.fastest else ():
        people.print(f"fastest: {line}", soft_wrap=True)
    before, after = (sum(counts.values()) for counts in (report.operators_before, report.operators))
    lines = [f"{step.name}, {scope}: {why}" for step in report.passes for scope, why in step.refusals.items()]
    difference = f"largest difference from PyTorch {report.max_abs:.2g}; {report.seconds:.1f} s"
    lines.append(f"{before} operators became {after}; {difference}")
    if report.predictions:
        share = f"{report.changed / report.predictions:.3%}"
        lines.append(f"{report.precision} changes {report.changed} of {report.predictions} test predictions ({share})")
    if given["triton"]:
        lines.append(f"Triton: {given['triton'] / Path(onnx_path).stem}")
    if given["kserve"]:
        lines.append(f"KServe: {given['kserve']}")
    for line in filter(None, (*lines, report.advice)):
        people.print(line, soft_wrap=True)
