"""What the workflows accept as a network: a `model.pt`, its content, or a module that only the caller knows."""

from __future__ import annotations

import copy
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from smx.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from smx.example_input import ExampleInput
    from smx.modelfile import SavedModel

    NetworkLike: TypeAlias = str | os.PathLike[str] | SavedModel | nn.Module


@dataclass(frozen=True)
class Network:
    """A network in PyTorch, ready to run.

    Attributes:
        name: for messages.
        module: in `eval()`, on the CPU.
        exact: the same in float64.
        example: an input (B, *) for each argument.
        saved: the content of its `model.pt`; None for a module.
    """

    name: str
    module: nn.Module
    exact: nn.Module
    example: tuple[Tensor, ...]
    saved: SavedModel | None


def open_network(
    network: NetworkLike,
    example_input: ExampleInput | None = None,
    *,
    raw: bool = False,
    trust_code: bool = False,
) -> Network:
    """Make any `NetworkLike` ready to run.

    Args:
        network: a path of `model.pt`, its content, or a module; a module is copied.
        example_input: for a module: its arguments, see `smx.export.export_onnx`.
        raw: let a saved network take raw uint8 values and normalise them itself; a module stays as it is.
        trust_code: import the Python module that `model.pt` names, if its network is a user's own (`module:factory`).

    Raises:
        InputError: the file can't be used, or a module comes without `example_input`.
    """
    import torch
    from torch import Tensor, nn
    from torch.utils._pytree import tree_leaves

    from smx.calling import Flat
    from smx.example_input import as_arguments
    from smx.modelfile import load_model
    from smx.wrappers import copied, unwrapped

    if isinstance(network, nn.Module):
        if example_input is None:
            raise InputError("a module needs example_input=x, a tensor (B, *) that it takes, or a tuple of them")
        network = copied(unwrapped(network))
        name, arguments = type(network).__name__, as_arguments(example_input, network)
        network = Flat(network, arguments) if any(not isinstance(x, Tensor) for x in arguments) else network
        module = network.cpu().eval()
        example = tuple(x for x in tree_leaves(arguments) if isinstance(x, Tensor))
        return Network(name, module, copy.deepcopy(module).double(), example, None)
    name = "the model"
    if isinstance(network, str | os.PathLike):
        name, network = str(network), load_model(Path(network), trust_code=trust_code)
    module, exact = network.build(raw=raw), network.build(raw=raw, dtype=torch.float64)
    return Network(name, module, exact, (network.example_input(raw=raw),), network)
