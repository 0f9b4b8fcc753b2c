"""From a plain module to phase 1 (`select`), and from phase 1 to phase 2 (`commit`)."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from smx.activations import Activation, resolve_pool
from smx.layers import Mixed, Selective
from smx.paper import PAPER_POOL, TEMPERATURE

ACTIVATION_MODULES: tuple[type[nn.Module], ...] = (
    nn.ReLU,
    nn.ReLU6,
    nn.LeakyReLU,
    nn.PReLU,
    nn.RReLU,
    nn.ELU,
    nn.CELU,
    nn.SELU,
    nn.GELU,
    nn.SiLU,
    nn.Mish,
    nn.Hardswish,
    nn.Hardtanh,
    nn.Sigmoid,
    nn.Hardsigmoid,
    nn.LogSigmoid,
    nn.Tanh,
    nn.Softplus,
    nn.Softsign,
)
"""The modules that `select` replaces: PyTorch's elementwise activations."""


def select(
    module: nn.Module,
    pool: Iterable[str | Activation] = PAPER_POOL,
    *,
    example_input: Tensor | tuple[Any, ...] | None = None,
    temperature: float = TEMPERATURE,
    types: tuple[type[nn.Module], ...] = ACTIVATION_MODULES,
) -> nn.Module:
    """Return a copy of `module` in which every activation module is a `Selective`, one choice a channel.

    The channels of an activation are those of the last layer before it that has channels (Linear, Conv, BatchNorm,
    LayerNorm, ...): before it in execution when `example_input` is given (a dry run in `eval()`), otherwise before it
    in the order in which the module's parts were defined. Linear and LayerNorm have them on the last axis, the
    others on axis 1. Weights are copied; calls such as `F.relu(x)` in a `forward` are no modules and stay.

    Args:
        module: any module.
        pool: names or activations.
        example_input: a tensor, or a tuple of the arguments, for the dry run.
        temperature: tau of eq. 2.
        types: the module types to replace; narrow it to keep, for example, the Sigmoid of a gate.

    Raises:
        ValueError: there is nothing to replace, or the channels of an activation can't be told.
    """
    resolved = resolve_pool(pool)
    module = copy.deepcopy(module)
    found = [name for name, part in module.named_modules() if isinstance(part, types)]
    if not found:
        raise ValueError(
            f"{type(module).__name__} has no activation module to replace; calls such as F.relu can't be seen,"
            " write them as modules (nn.ReLU)"
        )
    channels = (
        _channels_by_definition(module) if example_input is None else _channels_by_run(module, example_input, types)
    )
    device = next((parameter.device for parameter in module.parameters()), None)

    def selective(name: str) -> nn.Module:
        if name not in channels:
            reason = (
                "no layer with channels stands before it"
                if example_input is None
                else "the dry run gave it no input of shape (B, N, *)"
            )
            raise ValueError(f"the channels of {name or type(module).__name__!r} can't be told: {reason}; {_ADVICE}")
        return Selective(channels[name].count, resolved, temperature, channels[name].dim, device=device)

    return _replace(module, types, selective)


def commit(module: nn.Module) -> nn.Module:
    """Return a copy of `module` in which every `Selective` is a `Mixed` with its largest logits' choice (eq. 8).

    Everything else, weights and training mode included, is kept.

    Raises:
        ValueError: `module` has no `Selective`.
    """
    module = copy.deepcopy(module)
    if not any(isinstance(part, Selective) for part in module.modules()):
        raise ValueError(f"{type(module).__name__} has no Selective layer to commit; smx.select makes them")
    parts = dict(module.named_modules())

    def fixed(name: str) -> nn.Module:
        layer = parts[name]
        assert isinstance(layer, Selective)
        return Mixed(layer.choice, layer.pool, layer.dim).train(layer.training)

    return _replace(module, (Selective,), fixed)


_ADVICE = "pass example_input, or narrow types"


def _replace(
    module: nn.Module, types: tuple[type[nn.Module], ...], replacement: Callable[[str], nn.Module]
) -> nn.Module:
    """Put `replacement(name)` in the place of every part of the given types; a part used twice is replaced once."""
    made: dict[nn.Module, nn.Module] = {}
    if isinstance(module, types):
        return replacement("")
    for name, part in list(module.named_modules(remove_duplicate=False)):
        if isinstance(part, types):
            if part not in made:
                made[part] = replacement(name)
            module.set_submodule(name, made[part])
            parent = module.get_submodule(name.rpartition(".")[0])
            if hasattr(parent, "activation_relu_or_gelu"):
                # nn.TransformerEncoderLayer's fast path computes this one instead of calling its activation module.
                setattr(parent, "activation_relu_or_gelu", 0)  # noqa: B010
    return module


@dataclass(frozen=True)
class _Channels:
    count: int
    dim: int


def _channels_of(layer: nn.Module) -> _Channels | None:
    """Return how many channels a layer puts out and on which axis, or None for a layer that passes them through."""
    if isinstance(layer, nn.Linear | nn.Bilinear):
        return _Channels(int(layer.out_features), -1)
    if isinstance(layer, nn.LayerNorm):
        return _Channels(int(layer.normalized_shape[-1]), -1)
    if isinstance(layer, nn.modules.conv._ConvNd):
        return _Channels(int(layer.out_channels), 1)
    if isinstance(layer, nn.modules.batchnorm._NormBase):
        return _Channels(int(layer.num_features), 1)
    if isinstance(layer, nn.GroupNorm):
        return _Channels(int(layer.num_channels), 1)
    return None


def _leaves(module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    return ((name, part) for name, part in module.named_modules() if next(part.children(), None) is None)


def _channels_by_definition(module: nn.Module) -> dict[str, _Channels]:
    channels: dict[str, _Channels] = {}
    last: _Channels | None = None
    for name, part in _leaves(module):
        last = _channels_of(part) or last
        if last is not None:
            channels[name] = last
    return channels


def _channels_by_run(
    module: nn.Module, example_input: Tensor | tuple[Any, ...], types: tuple[type[nn.Module], ...]
) -> dict[str, _Channels]:
    channels: dict[str, _Channels] = {}
    last: _Channels | None = None

    def record(name: str, part: nn.Module, output: Tensor) -> None:
        nonlocal last
        last = _channels_of(part) or last
        if not isinstance(output, Tensor) or output.dim() < 2:
            return
        known = last is not None and output.dim() > last.dim and output.shape[last.dim] == last.count
        found = last if last is not None and known else _Channels(int(output.shape[1]), 1)
        if channels.setdefault(name, found) != found and isinstance(part, types):
            raise ValueError(
                f"{name} is used for inputs of {channels[name].count} and of {found.count} channels;"
                " give each use its own activation module"
            )

    def hook(name: str) -> Callable[[nn.Module, Any, Any], None]:
        return lambda part, inputs, output: record(name, part, output)

    handles = [part.register_forward_hook(hook(name)) for name, part in _leaves(module)]
    was_training = module.training
    try:
        with torch.no_grad():
            module.eval()(*(example_input if isinstance(example_input, tuple) else (example_input,)))
    finally:
        module.train(was_training)
        for handle in handles:
            handle.remove()
    return channels
