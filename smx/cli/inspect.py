"""`smx inspect`: what a model file holds. For an ONNX file it runs on the base install."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from smx.cli import options
from smx.cli.output import table, write_json


@click.command(cls=options.Command)
@click.argument("path", metavar="MODEL.pt|MODEL.onnx", type=options.PATH)
@options.json
def inspect(path: Path, json_path: str | None) -> None:
    """Show a model's layers with their groups, its operators, sizes and metadata.

    \b
    smx inspect mnist.onnx
    """
    from smx.workflows.describe import describe

    found = describe(path)
    people = write_json(json_path, found.to_dict())
    facts = {"bytes": found.bytes, **found.facts}.items()
    rows = ((key.replace("_", " "), _plain(value)) for key, value in facts)
    people.print(table(("", ""), rows, title=found.file, show_header=False))
    if found.layers:
        names = list(dict.fromkeys(name for layer in found.layers for name in layer["groups"]))
        sizes = (
            (layer["name"], str(layer["neurons"]), *(str(layer["groups"].get(name, "")) for name in names))
            for layer in found.layers
        )
        people.print(table(("layer", ">neurons", *(f">{name}" for name in names)), sizes, title="mixed layers"))
    if found.selective:
        axes = ((layer["name"], str(layer["neurons"]), str(layer["axis"])) for layer in found.selective)
        people.print(table(("layer", ">neurons", ">axis"), axes, title="selective layers"))
    if found.left:
        reasons = ((row["path"], row["activation"], row["reason"]) for row in found.left)
        people.print(table(("activation", "function", "why"), reasons, title="left as they are"))


def _plain(value: Any, between: str = "\n") -> str:
    if isinstance(value, dict):
        return between.join(f"{key}: {_plain(entry, ', ')}" for key, entry in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:,}" if isinstance(value, int) else str(value)
