"""`smx inspect`: what a model file holds. For an ONNX file it runs on the base install."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from rich.table import Table

from smx.cli.options import Command, console, json_option, write_json
from smx.errors import InputError


@click.command(cls=Command)
@click.argument("path", metavar="MODEL.pt|MODEL.onnx", type=click.Path(path_type=Path))
@json_option
def inspect(path: Path, json_path: str | None) -> None:
    """Show a model's layers with their groups, its operators, sizes and metadata.

    \b
    smx inspect mnist.onnx
    """
    readers = {".pt": _inspect_saved, ".onnx": _inspect_onnx}
    if path.suffix not in readers:
        raise InputError(f"{path} must end in {' or '.join(readers)}")
    found = readers[path.suffix](path)
    people = console(json_path)
    facts = Table(title=str(path), show_header=False)
    for key, value in found.items():
        if key not in ("file", "layers"):
            facts.add_row(key.replace("_", " "), _plain(value))
    people.print(facts)
    if found["layers"]:
        activations = list(dict.fromkeys(name for layer in found["layers"] for name in layer["groups"]))
        layers = Table(title="mixed layers")
        layers.add_column("layer")
        for heading in ("neurons", *activations):
            layers.add_column(heading, justify="right")
        for layer in found["layers"]:
            sizes = [str(layer["groups"].get(name, "")) for name in activations]
            layers.add_row(layer["name"], str(layer["neurons"]), *sizes)
        people.print(layers)
    write_json(json_path, found)


def _inspect_onnx(path: Path) -> dict[str, Any]:
    from smx.runtime.graph import summarise
    from smx.runtime.session import Session
    from smx.runtime.settings import Settings

    session = Session(path, settings=Settings())
    graph = summarise(path)
    info = session.info
    found: dict[str, Any] = {
        "file": str(path),
        "bytes": path.stat().st_size,
        "producer": graph.producer,
        "inputs": [f"{value.name} {value.type} {value.shape}" for value in session.inputs],
        "outputs": [f"{value.name} {value.type} {value.shape}" for value in session.outputs],
        "opsets": graph.opsets,
        "operators": graph.operators,
        "parameters": graph.parameters,
        "layers": [],
    }
    if info is not None:
        details = {key: value for key, value in vars(info).items() if key != "layers"}
        layers = [{"name": layer.name, "neurons": layer.neurons, "groups": layer.groups} for layer in info.layers]
        found |= {**details, "layers": layers}
    return found


def _inspect_saved(path: Path) -> dict[str, Any]:
    from smx.modelfile import load_model

    saved = load_model(path)
    statistics = ("running_mean", "running_var", "num_batches_tracked")
    return {
        "file": str(path),
        "bytes": path.stat().st_size,
        "architecture": str(saved.architecture),
        "parameters": sum(weight.numel() for name, weight in saved.weights.items() if not name.endswith(statistics)),
        "pool": list(saved.pool),
        "data": saved.data,
        "training": saved.training,
        "metrics": saved.metrics,
        "layers": [
            {
                "name": name,
                "neurons": len(choice),
                "groups": {each: n for k, each in enumerate(saved.pool) if (n := int((choice == k).sum()))},
            }
            for name, choice in saved.choices.items()
        ],
    }


def _plain(value: Any, between: str = "\n") -> str:
    if isinstance(value, dict):
        return between.join(f"{key}: {_plain(entry, ', ')}" for key, entry in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    if isinstance(value, float):
        return f"{value:.6g}"
    return f"{value:,}" if isinstance(value, int) else str(value)
