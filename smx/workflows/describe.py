"""What a model file holds. For an ONNX file it runs on the base install; no code that a `model.pt` names is run."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from smx.errors import InputError
from smx.files import NETWORKS


@dataclass(frozen=True, kw_only=True)
class Description:
    """The content of a model file.

    Attributes:
        file: its path.
        bytes: its size.
        facts: everything else that it says of itself, by name: operators and metadata of an ONNX file, architecture,
            data and training of a `model.pt`, parameters of both.
        layers: of each mixed layer the `name`, the `neurons` and the `groups`: how many have each activation.
        selective: of each layer whose neurons still choose, the `name`, the `neurons` and their `axis`.
        left: of each activation that `smx.select` left in a network of `smx.save`, `path`, `activation` and `reason`.
    """

    file: str
    bytes: int
    facts: dict[str, Any]
    layers: tuple[dict[str, Any], ...]
    selective: tuple[dict[str, Any], ...] = ()
    left: tuple[dict[str, str], ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        values = {"file": self.file, "bytes": self.bytes, **self.facts, "layers": list(self.layers)}
        more = {"selective": list(self.selective), "left": list(self.left)}
        return values | {name: rows for name, rows in more.items() if rows}


def describe(path: str | os.PathLike[str]) -> Description:
    """Read what a `model.pt` or an ONNX file holds.

    Raises:
        InputError: the file is missing, damaged or neither of both.
    """
    path = Path(path)
    readers = {**dict.fromkeys(NETWORKS, _saved), ".onnx": _onnx}
    if path.suffix not in readers:
        raise InputError(f"{path} must end in {' or '.join(readers)}")
    content = readers[path.suffix](path)
    return Description(file=str(path), bytes=path.stat().st_size, **content)


def _onnx(path: Path) -> dict[str, Any]:
    from smx.runtime.graph import summarise
    from smx.runtime.session import Session
    from smx.runtime.settings import Settings

    # Not optimised: ONNX Runtime would compute what the graph says of constants, which may take hours.
    session = Session(path, settings=Settings(optimization="disabled"))
    graph, info = summarise(path), session.info
    facts = {
        "producer": graph.producer,
        "inputs": [f"{value.name} {value.type} {value.shape}" for value in session.inputs],
        "outputs": [f"{value.name} {value.type} {value.shape}" for value in session.outputs],
        "opsets": graph.opsets,
        "operators": graph.operators,
        "parameters": graph.parameters,
    }
    if info is None:
        return {"facts": facts, "layers": ()}
    facts |= {key: value for key, value in vars(info).items() if key != "layers" and (value or key != "chosen")}
    layers = ({"name": layer.name, "neurons": layer.neurons, "groups": layer.groups} for layer in info.layers)
    return {"facts": facts, "layers": tuple(layers)}


def _saved(path: Path) -> dict[str, Any]:
    from smx.modelfile import load_model

    saved = load_model(path)
    # Weights are parameters and buffers; no layer trains what it only keeps as a statistic.
    buffers = ("running_mean", "running_var", "num_batches_tracked")
    facts = {
        "architecture": str(saved.architecture),
        "parameters": sum(
            weight.numel() for name, weight in saved.weights.items() if name.rpartition(".")[2] not in buffers
        ),
        "pool": list(saved.pool),
        "data": saved.data,
        "training": saved.training,
        "metrics": saved.metrics,
    }
    layers = []
    for name, choice in saved.choices.items():
        chosen = choice.tolist()
        groups = {own: chosen.count(k) for k, own in enumerate(saved.pool) if k in chosen}
        layers.append({"name": name, "neurons": len(chosen), "groups": groups})
    program = saved.architecture.program
    selective = tuple(
        {"name": name, "neurons": len(saved.weights[f"{name}.logits"]), "axis": about["dim"]} | _kept(about)
        for name, about in program.get("layers", {}).items()
        if name not in saved.choices
    )
    left = tuple(program.get("left", ()))
    return {"facts": facts, "layers": tuple(layers), "selective": selective, "left": left}


def _kept(about: dict[str, Any]) -> dict[str, Any]:
    """Return what the file says beside the axis; where neurons choose together, there are fewer logits than neurons."""
    names = {"num_features": "neurons", "per": "per", "selection": "selection", "temperature": "temperature"}
    return {name: about[key] for key, name in names.items() if key in about}
