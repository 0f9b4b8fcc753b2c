"""`smx predict`: classes for arrays and images. Runs on the base install."""

from __future__ import annotations

from pathlib import Path
from textwrap import shorten
from typing import Any

import click

from smx.cli import options
from smx.cli.output import logs, table, write_json
from smx.errors import SmxError

ROWS = 1000
"""Of one table: a longer one takes minutes until it shows anything."""


@click.command(cls=options.Command)
@click.argument("onnx_path", metavar="MODEL.onnx", type=options.PATH)
@click.argument("samples_paths", metavar="INPUT...", type=options.PATH, nargs=-1, required=True)
@click.option("--invert", is_flag=True, help="The images are dark on light; MNIST and the digits are light on dark.")
@options.session
@options.json
def predict(onnx_path: Path, samples_paths: tuple[Path, ...], json_path: str | None, **options: Any) -> None:
    """Classify arrays and images.

    INPUT is an .npy or .npz array, an image, or a folder of images. Whole numbers are raw values and are
    normalised as in training; floating numbers are taken as they are; images are resized to the model's size. What
    smx tune left beside the model is used. What is no image in a folder, or can't be read of several inputs, is named;
    the others are classified, and the exit code is 1.

    \b
    smx predict mnist.onnx digit.png --invert
    """
    from smx.workflows.classify import classify

    samples: Any = samples_paths[0] if len(samples_paths) == 1 else samples_paths
    report = classify(onnx_path, samples, **options)
    people = write_json(json_path, report.to_dict())
    if report.note:
        logs().print(report.note, soft_wrap=True)
    best = (f"{row.max():.4f}" for row in report.probabilities)
    rows = list(zip(report.examples, report.classes, best, strict=True))
    for start in range(0, max(1, len(rows)), ROWS):
        people.print(table(("example", "class", ">probability"), rows[start : start + ROWS]))
    if report.left:
        names, (first, *_) = ", ".join(report.left), report.left.values()
        raise SmxError(f"{len(report.left)} could not be read and were left out: {shorten(names, 500)} ({first})")
