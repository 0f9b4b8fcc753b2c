"""`smx export`: from model.pt to an ONNX file."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.table import Table

from smx.cli.options import Command, OutputPath, console, data_dir_option, json_option, logs, write_json
from smx.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from smx.data.dataset import Dataset
    from smx.export import ExportReport
    from smx.modelfile import SavedModel

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
    from smx.runtime.machine import machine

    model = load_model(model_path)
    dataset = datasets.load(model.data["name"], data_dir) if precision in ("float16", "int8") else None
    notes = logs()
    with notes.status("exporting") if notes.is_terminal else nullcontext():
        report = export_onnx(
            model.build(raw=normalize),
            onnx_path,
            example_input=example_input(model, raw=normalize),
            layout=layout,
            batch=batch,
            opset=opset,
            precision=precision,
            calibration=examples(model, dataset, dataset.train.x[:CALIBRATION], raw=normalize) if dataset else None,
            evaluation=examples(model, dataset, dataset.test.x, raw=normalize) if dataset else None,
            describe=description(model),
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
    if report.layout == "scatter" and "sorted" in report.layouts:
        here, other = report.layouts["scatter"], report.layouts["sorted"]
        scatters, fewer = (counts.get("ScatterElements", 0) for counts in (here, other))
        people.print(
            f"--layout sorted would take {sum(other.values())} operators instead of {sum(here.values())},"
            f" {fewer} ScatterElements instead of {scatters}; smx bench times both",
            soft_wrap=True,
        )


def example_input(model: SavedModel, *, raw: bool = False) -> Tensor:
    """Return one example of the shape and dtype that a saved model takes."""
    import torch

    if not raw:
        return torch.zeros(1, *model.architecture.input_shape)
    random = torch.Generator().manual_seed(0)
    shape = (1, *model.data["sample_shape"])
    return torch.randint(int(model.data["maximum"]) + 1, shape, dtype=torch.uint8, generator=random)


def examples(model: SavedModel, dataset: Dataset, x: NDArray[np.float32], *, raw: bool) -> NDArray[Any]:
    """Return normalised examples (B, F) of a data set as the exported model takes them, with `raw` as uint8.

    They go through the shape that the model's own data have, so that channels first or last make no difference.

    Raises:
        InputError: the data's examples have more or fewer values, or with `raw` no whole numbers up to 255.
    """
    from smx.runtime.arrays import as_taken

    shape = model.data["sample_shape"] if raw else model.architecture.input_shape
    if raw and not 1 < dataset.maximum <= 255:
        raise InputError(f"the values of {dataset.name} are no whole numbers from 0 to 255, which the model takes")
    values = (x * dataset.maximum).round().astype("uint8") if raw else x
    try:
        return as_taken(as_taken(values.reshape(-1, *dataset.sample_shape), model.data["sample_shape"]), shape)
    except InputError as error:
        raise InputError(f"{dataset.name} does not fit the model: {error}") from error


def description(model: SavedModel) -> dict[str, Any]:
    """Return what the ONNX metadata should say of a saved model."""
    return {
        "architecture": str(model.architecture),
        "pool": model.pool,
        "class_names": model.data["class_names"],
        "sample_shape": model.data["sample_shape"],
        "maximum": model.data["maximum"],
    }
