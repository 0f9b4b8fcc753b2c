"""`smx inspect`: what a model file holds. For an ONNX file it runs on the base install."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from smx.cli.options import Command, console, json_option, write_json
from smx.cli.tables import table


@click.command(cls=Command)
@click.argument("path", metavar="MODEL.pt|MODEL.onnx", type=click.Path(path_type=Path))
@json_option
def inspect(path: Path, json_path: str | None) -> None:
    """Show a model's layers with their groups, its operators, sizes and metadata.

    \b
    smx inspect mnist.onnx
    """
    from smx.workflows.describe import describe

    found = describe(path)
    write_json(json_path, found.to_dict())
    people = console(json_path)
    facts = table("", "", title=found.file, show_header=False)
    for key, value in {"bytes": found.bytes, **found.facts}.items():
        facts.add_row(key.replace("_", " "), _plain(value))
    people.print(facts)
    if found.layers:
        activations = list(dict.fromkeys(name for layer in found.layers for name in layer["groups"]))
        layers = table("layer", ">neurons", *(f">{name}" for name in activations), title="mixed layers")
        for layer in found.layers:
            sizes = [str(layer["groups"].get(name, "")) for name in activations]
            layers.add_row(layer["name"], str(layer["neurons"]), *sizes)
        people.print(layers)


def _plain(value: Any, between: str = "\n") -> str:
    if isinstance(value, dict):
        return between.join(f"{key}: {_plain(entry, ', ')}" for key, entry in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    if isinstance(value, float):
        return f"{value:.6g}"
    return f"{value:,}" if isinstance(value, int) else str(value)
