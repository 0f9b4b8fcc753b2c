"""Sorting a module's neurons: the permutations, found by a dry run without data, and a copy with them applied."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from itertools import chain, pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from smx.calling import call, tensors_by_name
from smx.example_input import ExampleInput, as_arguments, infer, with_copies, without_data
from smx.layers import Mixed, Selective
from smx.sorting.aten import DryRun, ReadError, Reads
from smx.sorting.axes import Order, indices, sort_classes
from smx.wrappers import copied, unwrapped


def sort(module: nn.Module, *, example_input: ExampleInput | None = None) -> nn.Module:
    """Return a copy of a committed module in which the choice of every `Mixed` is ascending, where that is possible.

    With P the permutation that sorts the choice, f a mixed layer and f_P the one with its choice permuted,

        W2 f(W1 x + b1)  =  (W2 P^-1) f_P((P W1) x + P b1)

    so P moves into the rows and biases of the layers before it and into the columns of those after it, through all
    operators that keep channels apart (`smx.sorting.aten.RULES`). The copy computes the same function in `eval()` and
    in `train()`, up to the order of float sums and of the numbers that Dropout draws. Its inputs, outputs and
    parameters keep their names, shapes and order. Make the optimizer after sorting: its state is not permuted.

    Where the structure does not allow it, a layer keeps its order, and `refusals` says why. Where several layers share
    one order, as along a residual trunk, the layer with the most values is sorted, and the next one within its groups.

    Two dry runs without data, in `eval()` and in `train()`, find the structure; where a forward looks at values, such
    as those of a mask, they are made with data. Do not sort a module whose forward branches at random or by whole
    numbers in its inputs, or hands out tensors by other means than its result.

    Args:
        module: any module with `Mixed` layers; it stays as it is.
        example_input: as for `smx.select`; only shapes and dtypes count, unless a forward looks at values. None: a
            shape is inferred from the first layer, see `smx.example_input.infer`.

    A warning says if nothing could be sorted, and why.

    Raises:
        ValueError: `module` has no `Mixed`, or still a `Selective`, or can't be copied.
    """
    result = copied(unwrapped(module))
    _check(result)
    found = plan(result, example_input)
    mixed = [path for path, part in result.named_modules() if isinstance(part, Mixed) and len(part.group_sizes) > 1]
    if mixed and found.refusals.keys() >= set(mixed):
        others = f" and {len(mixed) - 1} more" if len(mixed) > 1 else ""
        reason = f"{mixed[0] or 'it'}{others}: {found.refusals[mixed[0]]}"
        warnings.warn(f"nothing was sorted: {reason}; smx.sorting.refusals lists all", stacklevel=2)
    by_id = {id(tensor): (name, tensor) for name, tensor in named_tensors(result)}  # shared ones are permuted once
    with torch.no_grad():
        for name, tensor in by_id.values():
            for axis, old in found.permutations.get(name, {}).items():
                tensor.copy_(tensor.index_select(axis, torch.tensor(old, device=tensor.device)))
    for part in result.modules():
        if isinstance(part, Mixed):
            part.load_state_dict(part.state_dict())  # it groups its neurons anew
    return result


def refusals(module: nn.Module, *, example_input: ExampleInput | None = None) -> dict[str, str]:
    """Return the layers that `sort` leaves unsorted, by module path, with the reasons; arguments as for `sort`."""
    module = unwrapped(module)
    _check(module)
    return plan(module, example_input).refusals


@dataclass(frozen=True)
class Plan:
    """How a module's tensors are permuted together, so that the module stays the same function.

    Attributes:
        permutations: the old index of each entry, by the name of a parameter or buffer (all its names) and by axis. An
            axis that keeps its order is left out.
        refusals: the reason for each `Mixed` that stays unsorted, by its module path.
    """

    permutations: dict[str, dict[int, list[int]]]
    refusals: dict[str, str]


def plan(
    module: nn.Module,
    example_input: ExampleInput | None = None,
    *,
    keys: Mapping[str, Sequence[int]] | None = None,
    modes: Sequence[bool] = (False, True),
) -> Plan:
    """Find the permutations that sort the neurons of every `Mixed` of a module.

    Args:
        module: stays as it is.
        example_input: as for `smx.sort`.
        keys: what the neurons are sorted by, for layers by their module path; None, and for other layers: the choice.
            None is also for a network whose state_dict will be loaded into another one.
        modes: which dry runs are made: False is that in `eval()`, True that in `train()`.
    """
    layers = {
        name: _Layer(part, (keys or {}).get(name, part.choice.tolist()))
        for name, part in module.named_modules()
        if isinstance(part, Mixed)
    }
    try:
        example = infer(module) if example_input is None else example_input
    except ValueError as error:
        failure = str(error)
    else:
        for values in (False, True):
            try:
                saved = keys is None
                return _run(module, layers, as_arguments(example, module), modes, values=values, saved=saved)
            except ReadError as error:
                failure = str(error)
            except Exception as error:  # whatever a forward may raise
                line = next(iter(str(error).splitlines()), "")
                failure = f"the dry run ended in {type(error).__name__}: {line}"
    return Plan({}, {name: failure for name, layer in layers.items() if not _ascends(layer.keys)})


def _check(module: nn.Module) -> None:
    if not any(isinstance(part, Mixed) for part in module.modules()):
        raise ValueError(f"{type(module).__name__} has no Mixed layer to sort; smx.commit makes them")
    for name, part in module.named_modules():
        if isinstance(part, Selective):
            raise ValueError(f"{name or 'the module'} is a Selective layer; fix the choices first, with smx.commit")


def named_tensors(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Yield the parameters and buffers under all their names."""
    return chain(module.named_parameters(remove_duplicate=False), module.named_buffers(remove_duplicate=False))


@dataclass
class _Layer:
    """A `Mixed`, what its neurons are sorted by, and how many values it has in a call; 0 before it is called."""

    part: Mixed
    keys: Sequence[int]
    size: int = 0


def _run(
    module: nn.Module,
    layers: dict[str, _Layer],
    example: tuple[Any, ...],
    modes: Sequence[bool],
    *,
    values: bool,
    saved: bool,
) -> Plan:
    run = DryRun()
    orders = run.orders
    dry, copies = with_copies(module, _cloned) if values else without_data(module)
    run.start(*copies.values())
    choices = {name: copies[id(layer.part.choice)] for name, layer in layers.items()}
    for name, layer in layers.items():
        own = [copies[id(buffer)] for buffer in layer.part.buffers(recurse=False)]
        dry.get_submodule(name).forward = partial(_forward, run, layer, own)
    for training in modes:
        arguments = tree_map(lambda x: _input(x, dry, values) if isinstance(x, Tensor) else x, example)
        inputs = [x for x in tree_leaves(arguments) if isinstance(x, Tensor)]
        run.start(*inputs)
        orders.pin_all(inputs, "it is an input of the module")
        with torch.inference_mode(), _random_numbers_stay(inputs) if values else torch.device("meta"), run, Reads(run):
            result = call(dry.train(training), arguments)
        outputs = tensors_by_name(result, ignored=(int, float, str)).values()
        orders.pin_all(outputs, "it is an output of the module")
    if saved:  # a state dict would bring the weights in their new order beside these buffers in the old one
        orders.pin_all((copies[id(buffer)] for buffer in _unsaved(module)), "a buffer that no state_dict holds")
    orders.pin_all(_overlapping(module, copies), "a weight shares its memory with another one")
    for name, layer in layers.items():
        if not layer.size:
            orders.pin_all([choices[name]], "the dry run does not reach it")
    largest = sorted(layers, key=lambda name: layers[name].size, reverse=True)
    sort_classes((orders.of(choices[name], 0), layers[name].keys) for name in largest)
    permutations: dict[str, dict[int, list[int]]] = {}
    for name, tensor in named_tensors(module):
        for axis in range(tensor.dim()):
            if moved := indices(orders.of(copies[id(tensor)], axis)):
                permutations.setdefault(name, {})[axis] = moved
    refusals = {}
    for name, layer in layers.items():
        order = orders.of(choices[name], 0)
        moved = indices(order)
        if not _ascends(layer.keys if moved is None else [layer.keys[i] for i in moved]):
            refusals[name] = _reason(order)
    return Plan(permutations, refusals)


def _forward(run: DryRun, layer: _Layer, own: Sequence[Tensor], z: Tensor) -> Tensor:
    """Stand for a `Mixed` in a dry run: its own tensors, (N,) and (2, N), have the order of its neurons."""
    dim, count = layer.part.dim, layer.part.num_features
    if not -z.dim() <= dim < z.dim() or z.shape[dim] != count:
        raise ValueError(f"Mixed expects {count} features on axis {dim}, got {tuple(z.shape)}")
    for tensor in own:
        run.orders.tie(run.orders.of(tensor, tensor.dim() - 1), run.orders.of(z, dim))
    layer.size = max(layer.size, z.numel())
    return z.clone()


def _reason(order: Order) -> str:
    for axes, _ in order:
        if axes.pinned:
            return axes.pinned
    return "its neurons come from several layers" if len(order) > 1 else "it shares the order of a larger layer"


def _ascends(keys: Sequence[int]) -> bool:
    return all(a <= b for a, b in pairwise(keys))


def _input(x: Tensor, dry: nn.Module, values: bool) -> Tensor:
    """Return an input for a dry run; a batch of 1 becomes 2, since BatchNorm does not train on a single value."""
    shape = (2, *x.shape[1:]) if x.dim() and x.shape[0] == 1 else x.shape
    if not values:
        return torch.empty(shape, dtype=x.dtype, device="meta")
    if not x.is_meta:
        return x.detach().expand(shape).clone()
    return torch.zeros(shape, dtype=x.dtype, device=next((weight.device for weight in dry.parameters()), None))


def _cloned(tensor: Tensor) -> Tensor:
    copy = tensor.detach().clone()
    return nn.Parameter(copy, requires_grad=tensor.requires_grad) if isinstance(tensor, nn.Parameter) else copy


def _random_numbers_stay(inputs: Sequence[Tensor]) -> AbstractContextManager[Any]:
    return torch.random.fork_rng(sorted({x.device.index for x in inputs if x.is_cuda}))


def _unsaved(module: nn.Module) -> Iterator[Tensor]:
    """Yield the buffers that are no part of the state dict."""
    for part in module.modules():
        yield from (buffer for name in part._non_persistent_buffers_set if (buffer := part._buffers[name]) is not None)


def _overlapping(module: nn.Module, copies: dict[int, Tensor]) -> Iterator[Tensor]:
    """Find tensors that are different objects in one memory: permuting one would change the other."""
    by_memory: dict[int, list[int]] = {}
    for tensor in (*module.parameters(), *module.buffers()):
        if pointer := tensor.untyped_storage().data_ptr():
            by_memory.setdefault(pointer, []).append(id(tensor))
    return (copies[key] for keys in by_memory.values() if len(keys) > 1 for key in keys)
