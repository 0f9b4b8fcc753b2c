"""`smx.save` and `smx.load`: a network of any class as a file that every command takes."""

from __future__ import annotations

import math
import os
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from smx import files
from smx.activations import get, known
from smx.architecture import PROGRAM, Architecture
from smx.convert import plan
from smx.errors import one_line
from smx.layers import Mixed, layers_of
from smx.modelfile import SavedModel, load_model, save_model
from smx.paper import PAPER
from smx.program import capture
from smx.wrappers import copied, unwrapped


def save(
    module: nn.Module,
    path: str | os.PathLike[str],
    *,
    example_input: Tensor | NDArray[Any],
    dynamic: Collection[int] = (),
    maximum: float = 1.0,
    sample_shape: Sequence[int] | None = None,
    class_names: Sequence[str] = (),
    data: str | os.PathLike[str] = "",
) -> None:
    """Write a committed or selected network of any class to a `model.pt`, which `smx verify`, `bench`, ... take.

    The file holds no code: the network is traced in `eval()` by `torch.export`, and kept as a list of PyTorch's
    operators. A network that is loaded computes what this one computes in `eval()`; a selected one can be committed. To
    train on, build your class again and load its `state_dict()`: Dropout and the like are not in the file.

    Args:
        module: takes one tensor (B, *) and returns one; nothing is changed.
        path: of the file.
        example_input: (B, *), of the shape and dtype that the network takes.
        dynamic: axes beside the batch that the network takes in any length, for `smx export --dynamic`.
        maximum: raw values are divided by it before they go in, for `smx predict` and `smx export --normalize`.
        sample_shape: the shape of one raw example, if it is another than the network takes, for example (28, 28).
        class_names: one for each output.
        data: the data set that it was trained on, a name or a path of an `.npz` file.

    Raises:
        ValueError: the network has no `Mixed` or `Selective`, does not take one tensor, is not in float32, can't be
            copied or traced, is random in `eval()`, its pools can't be kept, dynamic names an axis that is none, or
            class_names are not as many as the outputs.
        InputError: the path can't be written to.
    """
    files.check_suffix(Path(path), *files.NETWORKS)
    module = unwrapped(module)
    layers = layers_of(module)
    if not layers or "" in layers:
        raise ValueError(f"{type(module).__name__} has no Selective or Mixed layers in it; smx.select makes them")
    if isinstance(example_input, np.ndarray):
        example_input = torch.from_numpy(example_input)
    if isinstance(class_names, str):
        raise ValueError(f"class_names must be a sequence of names, got the string {class_names!r}"[:200])
    if not isinstance(example_input, Tensor):
        raise ValueError(
            f"smx.save keeps a network that takes one tensor, got an example_input of {type(example_input).__name__};"
            " smx.export.export_onnx takes networks with several inputs"
        )
    if not example_input.dim() or not example_input.numel():
        raise ValueError(f"example_input needs at least one example (1, *), got shape {tuple(example_input.shape)}")
    if sample_shape is not None and math.prod(sample_shape) != example_input[0].numel():
        taken = example_input[0].numel()
        raise ValueError(f"sample_shape must have as many values as the network takes, {taken}, got {sample_shape}")
    if example_input.dtype != torch.float32 and (example_input.is_floating_point() or example_input.is_complex()):
        raise ValueError(f"the network must take float32 or whole numbers, got an example of {example_input.dtype}")
    network = copied(module).eval()
    program, weights = capture(module, example_input, _axes(example_input, dynamic))
    pool = tuple(dict.fromkeys(activation for layer in layers.values() for activation in layer.pool))
    for activation in pool:
        if activation.name not in known() or get(activation.name) != activation:
            raise ValueError(
                f"the activation {activation.name!r} of a pool is not the registered one of this name; a file knows"
                " activations by their names, so call smx.register with it first"
            )
    choices: dict[str, Tensor] = {}
    described: dict[str, dict[str, Any]] = {}
    for name, layer in layers.items():
        described[name] = {"dim": layer.dim}
        weights |= {f"{name}.{key}": value for key, value in layer.state_dict().items() if key != "choice"}
        if isinstance(layer, Mixed):
            indices = torch.tensor([pool.index(activation) for activation in layer.pool])
            choices[name] = indices[layer.choice.cpu()]
        elif layer.pool != pool:
            raise ValueError("the Selective layers of a network must have one pool")
        else:
            described[name]["temperature"] = layer.temperature
            if layer.selection != PAPER:
                described[name]["selection"] = layer.selection
            if layer.per != 1:
                described[name] |= {"num_features": layer.num_features, "per": layer.per}
    with torch.no_grad():
        output = network(example_input).cpu()
    if len(class_names) and output.dim() == 2 and len(class_names) != output.shape[1]:
        raise ValueError(f"class_names must name each of the {output.shape[1]} outputs, got {len(class_names)} names")
    shape = tuple(example_input.shape[1:])
    architecture = Architecture(
        kind=PROGRAM,
        name=type(module).__name__,
        input_shape=shape,
        num_classes=int(output.shape[-1]) if output.dim() > 1 else 1,
        dtype=str(example_input.dtype).removeprefix("torch."),
        program={**program, "layers": described, "left": _left(module, example_input)},
    )
    saved = SavedModel(
        architecture=architecture,
        pool=tuple(activation.name for activation in pool),
        choices=choices,
        weights={name: weight.cpu() for name, weight in weights.items()},
        data={
            "name": os.fspath(data),
            "maximum": float(maximum),
            "class_names": tuple(map(str, class_names)),
            "sample_shape": tuple(sample_shape or shape),
        },
    )
    with torch.no_grad():
        loaded, again = saved.build()(example_input.cpu()), network(example_input).cpu()
    try:
        torch.testing.assert_close(loaded, output)
    except AssertionError as error:
        reason = f"what is loaded from the file computes something else: {one_line(error)}"
        if output.isnan().any() and again.isnan().any():
            reason = "it computes NaN for the example input; do its weights have NaN?"
        elif not torch.equal(output, again):
            reason = "it gives two answers to one input in eval(); F.dropout, for example, needs training=self.training"
        raise ValueError(f"{type(module).__name__} can't be saved: {reason}") from error
    save_model(Path(path), saved)


def _left(module: nn.Module, example_input: Tensor) -> list[dict[str, str]]:
    """Return the activations that `select` left, with the reason, for `smx inspect`."""
    try:
        rows = plan(module, example_input=example_input)
    except ValueError:  # what can be traced can be saved, whether its Python can be followed or not
        return []
    return [{"path": row.path, "activation": row.activation, "reason": row.left} for row in rows if row.left]


def _axes(example_input: Tensor, dynamic: Collection[int]) -> list[int]:
    rank = example_input.dim()
    if bad := [axis for axis in dynamic if not -rank <= axis < rank or axis % rank == 0]:
        raise ValueError(f"dynamic names axes 1 to {rank - 1} of the example, got {bad[0]}")
    return sorted({axis % rank for axis in dynamic})


def load(path: str | os.PathLike[str], *, trust_code: bool = False) -> nn.Module:
    """Return the network of a `model.pt`, in `eval()`, whether `smx.save` or `smx train` wrote it.

    A file of `smx train --model module:factory` needs `trust_code`: the module is imported, which runs it.

    Raises:
        InputError: the file is missing or damaged, or names code that is not trusted.
    """
    return load_model(Path(path), trust_code=trust_code).build()
