"""`smx predict`: classes for arrays and images. Runs on the base install."""

from __future__ import annotations

from pathlib import Path

import click
from rich.table import Table

from smx.cli.options import Command, console, fallback_option, json_option, logs, provider_option, write_json
from smx.errors import InputError

BATCH = 1024


@click.command(cls=Command)
@click.argument("onnx_path", metavar="MODEL.onnx", type=click.Path(path_type=Path))
@click.argument("samples_path", metavar="INPUT", type=click.Path(path_type=Path))
@click.option("--invert", is_flag=True, help="The images are dark on light; MNIST and the digits are light on dark.")
@provider_option
@fallback_option
@json_option
def predict(
    onnx_path: Path, samples_path: Path, invert: bool, provider: str, allow_fallback: bool, json_path: str | None
) -> None:
    """Classify arrays and images.

    INPUT is an .npy or .npz array, a .png or .jpg image, or a folder of images. Whole numbers are raw values and are
    normalised as in training; floating numbers are taken as they are; images are stretched to the model's size. What
    smx tune left beside the model is used.

    \b
    smx predict mnist.onnx digit.png --invert
    """
    import numpy as np

    from smx.runtime.samples import load_samples
    from smx.runtime.session import Session

    session = Session(onnx_path, provider, allow_fallback=allow_fallback)
    if session.note:
        logs().print(session.note, soft_wrap=True)
    elif session.tuning and not session.tuning.keeps_defaults:
        logs().print(f"tuned: {session.tuning.describe()}", soft_wrap=True)
    if len(session.inputs) != 1 or not all(isinstance(size, int) for size in session.inputs[0].shape[1:]):
        raise InputError(f"{onnx_path} must have one input of shape (batch, fixed sizes) for smx predict")
    info = session.info
    names, x = load_samples(samples_path, session.inputs[0].shape[1:], info, invert=invert, raw=session.takes_raw)
    logits = session.run(x, batch_size=BATCH)
    if logits.ndim != 2 or len(logits) != len(x):
        raise InputError(f"{onnx_path} must put out one row of class scores an example, got shape {logits.shape}")
    odds = np.exp(logits.astype(np.float64) - logits.max(1, keepdims=True))
    probabilities = odds / odds.sum(1, keepdims=True)
    classes = info.class_names if info else ()
    if len(classes) != logits.shape[1]:
        classes = tuple(map(str, range(logits.shape[1])))
    table = Table()
    for heading in ("example", "class", "probability"):
        table.add_column(heading, justify="right" if heading == "probability" else "left")
    predictions = []
    for name, row in zip(names, probabilities, strict=True):
        best = int(row.argmax())
        table.add_row(name, classes[best], f"{row[best]:.4f}")
        predictions.append(
            {
                "example": name,
                "class": classes[best],
                "index": best,
                "probabilities": [round(p, 6) for p in row.tolist()],
            }
        )
    console(json_path).print(table)
    write_json(json_path, {"model": str(onnx_path), "classes": list(classes), "predictions": predictions})
