"""What `init` gives a run: the weights of a network that `smx.save` or `smx train` wrote, and its choices."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from smx.architecture import PROGRAM, Architecture
from smx.errors import InputError
from smx.fused.operators import of_choice
from smx.layers import Mixed, Selective, layers_of
from smx.modelfile import SavedModel, load_model
from smx.paper import CURRENT
from smx.training.config import TrainConfig

Layers = Mapping[str, Selective | Mixed]
_COUNTER = "num_batches_tracked"
"""BatchNorm's count of batches, which no file of `smx.save` has: it is not used in `eval()`."""


def load_initial(network: nn.Module, architecture: Architecture, config: TrainConfig) -> str:
    """Load the weights of the file `config.init` into a network with fresh ones; return the file's SHA-256.

    With `start` = current each neuron of phase 1 begins with its activation in the file.

    Raises:
        InputError: the file is missing, damaged, or of another network; or its neurons have activations that this
            network can't begin with.
    """
    path = Path(config.init)
    saved = load_model(path)
    layers, own = _layers(saved), layers_of(network)
    weights = {name: value for name, value in saved.weights.items() if not _within(name, layers)}
    state = network.state_dict()
    wanted = {name: value for name, value in state.items() if not _within(name, own)}
    if saved.architecture.kind == PROGRAM:  # beside the weights it has constants of the code
        known = {*saved.architecture.program["parameters"], *wanted}
        weights = {name: value for name, value in weights.items() if name in known}
    for name in sorted({*wanted, *weights}):
        here, there = _shape(wanted.get(name)), _shape(weights.get(name))
        if here != there and not (name.endswith(_COUNTER) and there == "nothing"):
            raise InputError(
                f"init: {path} is of another network, {saved.architecture}: this one, {architecture}, has {here} as"
                f" {name}, the file {there}; train with the file's --model and --hidden, or take another file"
            )
    for name, layer in layers.items():
        if not _plain(layer):
            raise InputError(
                f"init: in {path} the neurons of {name} have scales and shifts of their own, as selection = matched"
                " leaves them, which a network can't begin with; take the file from before that run"
            )
    network.load_state_dict({**state, **weights})
    if config.start == CURRENT:
        for name, layer in own.items():
            if isinstance(layer, Selective):
                _begin(layer, layers.get(name), config.keep, f"init: {path}: {name}")
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _layers(saved: SavedModel) -> Layers:
    """Return the layers of a file with their choices, without running code of the user's."""
    if saved.architecture.kind == PROGRAM:
        return layers_of(saved.build())
    return {
        name: Mixed(choice, saved.pool, affine=saved.weights.get(f"{name}.affine"))
        for name, choice in saved.choices.items()
    }


def _within(name: str, layers: Layers) -> bool:
    return name.rpartition(".")[0] in layers


def _shape(value: Tensor | None) -> str:
    return "nothing" if value is None else str(tuple(value.shape))


def _plain(layer: Selective | Mixed) -> bool:
    """Tell whether a layer puts out f(z) as it is."""
    affine = layer.affine if isinstance(layer, Mixed) else layer.matching
    if isinstance(layer, Selective) and affine is not None:
        affine = of_choice(affine, layer.choice)
    return affine is None or bool((affine == affine.new_tensor([[1.0], [0.0]])).all())


def _begin(layer: Selective, found: Selective | Mixed | None, keep: float, where: str) -> None:
    """Let a layer begin with the activations of another one."""
    if found is None:
        raise InputError(f"{where} has no activations in the file; take one of the same network, or start = random")
    pool = [activation.name for activation in layer.pool]
    theirs = [activation.name for activation in found.pool]
    used = [theirs[k] for k in sorted({*found.choice.tolist()})]
    if missing := [name for name in used if name not in pool]:
        raise InputError(f"{where} has neurons of {missing[0]}, which is not in the pool {','.join(pool)}; add it")
    choice = torch.tensor([pool.index(name) if name in pool else 0 for name in theirs])[found.choice]
    present = choice[:: layer.per]
    if not torch.equal(layer.of_neurons(present), choice):
        raise InputError(
            f"{where} has several activations where per = {layer.per} lets neurons choose together; choose per = 1"
        )
    try:
        layer.begin(present, keep)
    except ValueError as error:
        raise InputError(str(error)) from error
