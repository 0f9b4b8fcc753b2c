"""How many channels each activation of a network has, and on which axis: by the layers before it, or by a dry run."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from smx.convert.modularize import Types, activation_name, in_order
from smx.layers import Mixed, Selective


@dataclass(frozen=True)
class Channels:
    """How many channels there are, and on which axis; negative axes count from the end."""

    count: int
    dim: int


def channels_by_definition(module: nn.Module, types: Types) -> dict[str, Channels | None]:
    """Return by path, for each innermost module that is called, the channels of the last layer before it that has any.

    None stands where there is no such layer.
    """
    channels: dict[str, Channels | None] = {}
    last: Channels | None = None
    for path, part in in_order(module, types):
        last = _channels_of(part) or last
        channels.setdefault(path, last)
    return channels


def channels_by_run(
    module: nn.Module, arguments: tuple[Any, ...], types: Types
) -> tuple[dict[str, Channels | None], dict[str, set[str]], Any]:
    """Find the channels of each activation by a dry run, see `dry_run`.

    Returns:
        The channels of each module, by path: those of `channels_by_definition` where it runs in training only, None
        where its input was not of the shape (B, N, *). What `modularize` could not change in a forward, by the path of
        its module. The outputs.

    Raises:
        ValueError: an activation is used for inputs of several widths.
    """
    defined = channels_by_definition(module, types)
    module = _throwaway(module)
    channels: dict[str, Channels | None] = {}
    last: Channels | None = None
    rank = 0  # of the last layer's output
    running: list[tuple[str, nn.Module, set[str]]] = []  # and the paths of the activations that each has called
    unchanged: dict[str, set[str]] = {}

    def enter(path: str, part: nn.Module, inputs: Any) -> None:
        if isinstance(part, types) and running:
            caller, _, used = running[-1]
            if path in used:
                unchanged.setdefault(caller, set()).add(f"its calls of {path} share one choice")
            used.add(path)
        running.append((path, part, set()))

    def leave(path: str, part: nn.Module, inputs: Any, output: Any) -> None:
        nonlocal last, rank
        running.pop()
        if not isinstance(part, types) and next(part.children(), None) is not None:
            return
        if own := _channels_of(part):
            last, rank = own, output.dim()
        if not isinstance(output, Tensor) or output.dim() < 2:
            channels.setdefault(path, None)
            return
        count = int(output.shape[1])
        known = last is not None and output.dim() > last.dim and output.shape[last.dim] == last.count
        scaled = last is not None and output.dim() > rank and count == last.count  # images that Linear layers gate
        here = last if last is not None and known and not scaled else Channels(count, 1)
        before = channels.setdefault(path, here)
        if before != here and isinstance(part, types):
            raise ValueError(
                f"{path} is used for inputs of {before.count if before else 'no'} and of {here.count} channels;"
                " give each use its own activation module"
            )

    for path, part in module.named_modules():
        part.register_forward_pre_hook(partial(enter, path))
        part.register_forward_hook(partial(leave, path))

    def note(function: Callable[..., Any]) -> None:
        if (name := activation_name(function, types)) and running:
            caller, part, _ = running[-1]
            if not isinstance(part, (*types, Selective, Mixed)):
                unchanged.setdefault(caller, set()).add(f"its {name} stays as it is")

    with _Watch(note):
        outputs = _run(module, arguments)
    return defined | channels, unchanged, outputs


def dry_run(module: nn.Module, arguments: tuple[Any, ...]) -> Any:
    """Run a module in `eval()` without gradients, and return its outputs.

    A copy runs that shares the weights, so buffers, modes and random numbers stay as they are.
    """
    return _run(_throwaway(module), arguments)


def _throwaway(module: nn.Module) -> nn.Module:
    return copy.deepcopy(module, {id(parameter): parameter for parameter in module.parameters()})


def _run(module: nn.Module, arguments: tuple[Any, ...]) -> Any:
    fast = torch.backends.mha.get_fastpath_enabled()
    gpus = {parameter.device.index for parameter in module.parameters() if parameter.device.type == "cuda"}
    try:
        torch.backends.mha.set_fastpath_enabled(False)  # it does not call an encoder's activations
        with torch.no_grad(), torch.random.fork_rng(devices=sorted(gpus)):
            return module.eval()(*arguments)
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


class _Watch(TorchFunctionMode):
    """Calls `note` with every function of PyTorch that is called."""

    def __init__(self, note: Callable[[Callable[..., Any]], None]) -> None:
        super().__init__()
        self.note = note

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.note(func)
        return func(*args, **(kwargs or {}))


def _channels_of(layer: nn.Module) -> Channels | None:
    """Return how many channels a layer's output has and on which axis; None if they are those of its input."""
    match layer:
        case nn.Linear() | nn.Bilinear():
            return Channels(layer.out_features, -1)
        case nn.LayerNorm():
            return Channels(layer.normalized_shape[-1], -1)
        case nn.modules.conv._ConvNd():
            return Channels(layer.out_channels, 1)
        case nn.modules.batchnorm._NormBase():
            return Channels(layer.num_features, 1)
        case nn.GroupNorm():
            return Channels(layer.num_channels, 1)
    return None
