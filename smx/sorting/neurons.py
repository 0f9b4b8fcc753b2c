"""Neurons that share an activation come to lie side by side: the permutations move into the weights."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from smx.layers import Mixed, Selective
from smx.sorting.aten import Traced, Tying
from smx.sorting.orders import Channels, Orders, indices, resolve, sort_channels
from smx.sorting.ties import pin_all

Example = Tensor | tuple[Any, ...] | None


def sort(module: nn.Module, example_input: Example = None) -> nn.Module:
    """Return a copy of a committed module in which the choice of every `Mixed` is ascending, where that can be.

    With P the permutation that sorts the choice, f a mixed layer and f_P the one with its choice permuted,

        W2 f(W1 x + b1)  =  (W2 P^-1) f_P((P W1) x + P b1)

    so P moves into the rows and biases of what produces the neurons and into the columns of what consumes them, through
    everything that keeps channels apart (`smx.sorting.aten.RULES`). The copy is the same function in `eval()` and in
    `train()`, up to the order of float sums and of what Dropout draws; its inputs, outputs and parameters keep their
    names, shapes and order. Sort before the optimizer is made: its state is not permuted.

    Where a structure does not allow it, a layer keeps its order, and `refusals` says why. Where several layers share
    one order, as along a residual trunk, the one with the most values is sorted, the next one within its groups.

    The structure is found by two dry runs without data, in `eval()` and in `train()`; so a forward that goes other ways
    by chance, or hands tensors out by other means than its result, must not be sorted.

    Args:
        module: any module with `Mixed` layers.
        example_input: a tensor, or a tuple of the arguments, of which only shapes and dtypes count. Without it, shapes
            are tried that the first Linear (B, in_features), BatchNorm1d (B, C) or Conv (B, C, S, ...) takes.

    Raises:
        ValueError: `module` has no `Mixed`, or still a `Selective`.
    """
    found = _find(module, example_input)
    sorted_ = copy.deepcopy(module)
    with torch.no_grad():
        for tensor, value in zip(_tensors(sorted_), found.values, strict=True):
            for axis in range(tensor.dim()):
                moved = indices(found.orders.of(value, axis))
                if moved is not None:
                    tensor.copy_(tensor.index_select(axis, torch.tensor(moved, device=tensor.device)))
    for part in sorted_.modules():
        if isinstance(part, Mixed):
            part.load_state_dict(part.state_dict())  # a changed choice is grouped anew
    return sorted_


def refusals(module: nn.Module, example_input: Example = None) -> dict[str, str]:
    """Return why `sort` leaves layers unsorted: for each of them its module path, and the reason.

    Args:
        module: before or after `sort`.
        example_input: as for `sort`.

    Raises:
        ValueError: as for `sort`.
    """
    found = _find(module, example_input)
    reasons = {}
    for name, layer in found.layers.items():
        order = resolve(found.orders.of(layer.choice, 0))
        moved = indices(order)
        keys = layer.keys if moved is None else [layer.keys[i] for i in moved]
        if keys != sorted(keys):
            reasons[name] = found.failure or _reason([channels for channels, _ in order])
    return reasons


def _reason(order: Sequence[Channels]) -> str:
    pinned = next((channels.pinned for channels in order if channels.pinned), None)
    if pinned:
        return pinned
    return "its neurons come from several layers" if len(order) > 1 else "it shares the order of a larger layer"


@dataclass
class _Layer:
    """A `Mixed`: its keys to sort by, what stands for its choice, and how many values it has in a call; 0: no call."""

    keys: list[int]
    choice: Traced
    size: int = 0


@dataclass
class _Found:
    """The orders after a dry run, with every permutation.

    Attributes:
        values: what stands for each of the module's tensors, in the order of `_tensors`.
        layers: its mixed layers by module path.
        failure: why there was no dry run.
    """

    values: list[Traced]
    layers: dict[str, _Layer]
    orders: Orders = field(default_factory=Orders)
    failure: str | None = None


def _find(module: nn.Module, example_input: Example) -> _Found:
    parts = dict(module.named_modules())
    if not any(isinstance(part, Mixed) for part in parts.values()):
        raise ValueError(f"{type(module).__name__} has no Mixed layer to sort; smx.commit makes them")
    for name, part in parts.items():
        if isinstance(part, Selective):
            raise ValueError(f"{name or 'the module'} is a Selective layer; fix the choices first, with smx.commit")
    if example_input is not None:
        try:
            return _run(module, example_input if isinstance(example_input, tuple) else (example_input,))
        except Exception as error:  # whatever a forward may raise
            line = next(iter(str(error).splitlines()), "")
            failure = f"the dry run ended in {type(error).__name__}: {line}"
    else:
        for example in _guesses(module):
            try:
                return _run(module, (example,))
            except Exception:  # an input that does not fit
                continue
        failure = "no input is known that the module takes; give example_input"
    values = {id(tensor): Traced(tuple(tensor.shape)) for tensor in _tensors(module)}
    return _Found(list(values.values()), _layers(module, values), failure=failure)


def _run(module: nn.Module, example_input: tuple[Any, ...]) -> _Found:
    """Tie what the module ties in `eval()` and in `train()`, and permute what is free."""
    tying = Tying()
    stand_ins = {id(tensor): _without_data(tensor) for tensor in _tensors(module)}
    values = {key: tying.add(tensor) for key, tensor in stand_ins.items()}
    layers = _layers(module, values)
    dry = copy.deepcopy(module, dict(stand_ins))
    for name, part in dry.named_modules():
        if isinstance(part, Mixed):
            part.forward = partial(_forward, tying, part, layers[name])  # type: ignore[method-assign]
    for training in (False, True):
        arguments = tree_map(lambda x: _batch(x) if isinstance(x, Tensor) else x, example_input)
        for x in tree_leaves(arguments):
            if isinstance(x, Tensor):
                pin_all(tying.orders, [tying.add(x)], "it is an input of the module")
        with torch.inference_mode(), torch.device("meta"), tying:
            result = dry.train(training)(*arguments)
        for y in tree_leaves(result):
            if isinstance(y, Tensor):
                pin_all(tying.orders, [tying.traced(y)], "it is an output of the module")
            elif not isinstance(y, int | float | str | None):
                raise TypeError(f"the module returns a {type(y).__name__}, which can't be seen through")
    for value in _overlapping(module, values):
        pin_all(tying.orders, [value], "a weight shares its memory with another one")
    for layer in layers.values():
        if not layer.size:
            pin_all(tying.orders, [layer.choice], "the dry run does not come to it")
    largest = sorted(layers.values(), key=lambda layer: layer.size, reverse=True)
    sort_channels((tying.orders.of(layer.choice, 0), layer.keys) for layer in largest)
    return _Found(list(values.values()), layers, tying.orders)


def _forward(tying: Tying, part: Mixed, layer: _Layer, z: Tensor) -> Tensor:
    """Stand for a `Mixed` in a dry run: its choice has the order of its neurons."""
    if not -z.dim() <= part.dim < z.dim() or z.shape[part.dim] != part.num_features:
        raise ValueError(f"Mixed expects {part.num_features} features on axis {part.dim}, got {tuple(z.shape)}")
    tying.orders.tie(tying.of(part.choice, 0), tying.of(z, part.dim))
    layer.size = max(layer.size, z.numel())
    return z.clone()


def _layers(module: nn.Module, values: dict[int, Traced]) -> dict[str, _Layer]:
    return {
        name: _Layer(part.choice.tolist(), values[id(part.choice)])
        for name, part in module.named_modules()
        if isinstance(part, Mixed)
    }


def _tensors(module: nn.Module) -> list[Tensor]:
    return [*module.parameters(), *module.buffers()]


def _without_data(tensor: Tensor) -> Tensor:
    empty = torch.empty_like(tensor, device="meta")
    return nn.Parameter(empty, requires_grad=tensor.requires_grad) if isinstance(tensor, nn.Parameter) else empty


def _batch(x: Tensor) -> Tensor:
    """Return an input without data; a batch of 1 becomes one of 2, since BatchNorm does not train on a single value."""
    shape = (2, *x.shape[1:]) if x.dim() and x.shape[0] == 1 else x.shape
    return torch.empty(shape, dtype=x.dtype, device="meta")


def _overlapping(module: nn.Module, values: dict[int, Traced]) -> Iterator[Traced]:
    """Find tensors that are different objects in one memory: permuting one would change the other."""
    homes: dict[int, list[int]] = {}
    for tensor in _tensors(module):
        if pointer := tensor.untyped_storage().data_ptr():
            homes.setdefault(pointer, []).append(id(tensor))
    return (values[key] for home in homes.values() if len(home) > 1 for key in home)


def _guesses(module: nn.Module) -> Iterator[Tensor]:
    """Make inputs that the first layer takes; the batch has a length that no layer is likely to have."""
    for part in module.modules():
        dtype = next((parameter.dtype for parameter in part.parameters(recurse=False)), None)
        if isinstance(part, nn.Linear):
            yield torch.empty(_BATCH, part.in_features, dtype=dtype, device="meta")
        elif isinstance(part, nn.BatchNorm1d):
            yield torch.empty(_BATCH, part.num_features, dtype=dtype, device="meta")
        elif isinstance(part, nn.modules.conv._ConvNd):
            for size in _SIZES:
                space = [size] * (part.weight.dim() - 2)
                yield torch.empty(_BATCH, part.in_channels, *space, dtype=dtype, device="meta")
        else:
            continue
        return


_BATCH = 13
_SIZES = tuple(dict.fromkeys((32, 28, 64, 224, *range(1, 65), 96, 128, 160, 192, 256, 299)))
