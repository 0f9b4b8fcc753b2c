"""A network's example input: as a user gives it, or inferred from the network's first layer."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from smx.calling import Keywords, parameters

ExampleInput = Tensor | NDArray[Any] | tuple[Any, ...] | Mapping[str, Any]
"""A network's input; a tuple of its arguments; a dict of those by name, or a tuple that ends in one.

NumPy arrays count as tensors. A dict whose names are not those of the forward's parameters is an argument by itself.
"""


def as_arguments(example_input: Any, module: nn.Module) -> tuple[Any, ...]:
    """Return an example input as the tuple of the arguments of the module's forward, which `smx.calling.call` takes."""
    arguments = example_input if isinstance(example_input, tuple) else (example_input,)
    if arguments and isinstance(arguments[-1], Mapping):
        *others, last = arguments
        if _are_names(last, module, len(others)):
            arguments = (*others, Keywords(last))
    return tuple(tree_map(lambda x: torch.tensor(x) if hasattr(x, "__array_interface__") else x, arguments))


def _are_names(given: Mapping[Any, Any], module: nn.Module, places: int) -> bool:
    """Whether a forward that gets so many arguments by place takes these by their names."""
    known = list(parameters(module).values())
    named = {p.name for p in known[places:] if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    named |= {p.name for p in known if p.kind is p.KEYWORD_ONLY}
    any_name = any(p.kind is p.VAR_KEYWORD for p in known)
    return bool(given) and all(name in named or (any_name and isinstance(name, str)) for name in given)


def infer(module: nn.Module, *, any_size: bool = True) -> Tensor:
    """Return an input without data that the module takes in `eval()`, of a shape that its first layer suggests.

    That is (B, in_features) for Linear, (B, C) for BatchNorm1d, and, with `any_size`, (B, C, S, ...) for a convolution,
    for which several sizes S are tried.

    Raises:
        ValueError: no input is found.
    """
    for example in _suggestions(module, any_size):
        try:
            with torch.inference_mode(), torch.device("meta"):
                without_data(module)[0].eval()(example)
        except Exception:  # whatever a forward may raise for an input that does not fit
            continue
        return example
    raise ValueError("no input is known that the module takes; give example_input")


def without_data(module: nn.Module) -> tuple[nn.Module, dict[int, Tensor]]:
    """Return a copy of a module on the device `meta`, and the copies of its tensors by the tensors' `id`."""
    return with_copies(module, _without_data)


def with_copies(module: nn.Module, copied: Callable[[Tensor], Tensor]) -> tuple[nn.Module, dict[int, Tensor]]:
    """Return a copy of a module whose tensors are those that `copied` makes, and these by the `id` of the old ones."""
    copies = {id(tensor): copied(tensor) for tensor in (*module.parameters(), *module.buffers())}
    return copy.deepcopy(module, dict(copies)), copies


def _without_data(tensor: Tensor) -> Tensor:
    empty = torch.empty_like(tensor, device="meta")
    return nn.Parameter(empty, requires_grad=tensor.requires_grad) if isinstance(tensor, nn.Parameter) else empty


def _suggestions(module: nn.Module, any_size: bool) -> Iterator[Tensor]:
    """Make inputs that the first layer takes; the batch has a length that no layer is likely to have."""
    for part in module.modules():
        match part:
            case nn.Linear():
                shapes = [(part.in_features,)]
            case nn.BatchNorm1d():
                shapes = [(part.num_features,)]
            case nn.modules.conv._ConvNd():
                shapes = [(part.in_channels, *[size] * (part.weight.dim() - 2)) for size in _SIZES if any_size]
            case _:
                continue
        dtype = next((parameter.dtype for parameter in part.parameters(recurse=False)), None)
        yield from (torch.empty(_BATCH, *shape, dtype=dtype, device="meta") for shape in shapes)
        return


_BATCH = 13
_SIZES = tuple(dict.fromkeys((32, 28, 64, 224, *range(1, 65), 96, 128, 160, 192, 256, 299)))
