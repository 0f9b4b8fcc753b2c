"""Sorting a module's neurons, as a copy of the module, and the reasons where that is not possible."""

from __future__ import annotations

import copy

import torch
from torch import nn

from smx.example_input import ExampleInput
from smx.layers import Mixed, Selective
from smx.sorting.planner import named_tensors, plan


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

    The structure is found by two dry runs without data, in `eval()` and in `train()`. Do not sort a module whose
    forward branches at random, or hands out tensors by other means than its result.

    Args:
        module: any module with `Mixed` layers; it stays as it is.
        example_input: a tensor or array, or a tuple of the arguments, of which only shapes and dtypes count. None: a
            shape is inferred from the first Linear (B, in_features), BatchNorm1d (B, C) or convolution (B, C, S, ...).

    Raises:
        ValueError: `module` has no `Mixed`, or still a `Selective`.
    """
    _check(module)
    permutations = plan(module, example_input).permutations
    copied = copy.deepcopy(module)
    by_id = {id(tensor): (name, tensor) for name, tensor in named_tensors(copied)}  # shared ones are permuted once
    with torch.no_grad():
        for name, tensor in by_id.values():
            for axis, old in permutations.get(name, {}).items():
                tensor.copy_(tensor.index_select(axis, torch.tensor(old, device=tensor.device)))
    for part in copied.modules():
        if isinstance(part, Mixed):
            part.load_state_dict(part.state_dict())  # it groups its neurons anew
    return copied


def refusals(module: nn.Module, *, example_input: ExampleInput | None = None) -> dict[str, str]:
    """Return why `sort` leaves layers unsorted: for each of them its module path, and the reason.

    Args:
        module: before or after `sort`.
        example_input: as for `sort`.

    Raises:
        ValueError: as for `sort`.
    """
    _check(module)
    return plan(module, example_input).refusals


def _check(module: nn.Module) -> None:
    parts = dict(module.named_modules())
    if not any(isinstance(part, Mixed) for part in parts.values()):
        raise ValueError(f"{type(module).__name__} has no Mixed layer to sort; smx.commit makes them")
    for name, part in parts.items():
        if isinstance(part, Selective):
            raise ValueError(f"{name or 'the module'} is a Selective layer; fix the choices first, with smx.commit")
