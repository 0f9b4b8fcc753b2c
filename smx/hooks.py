"""What the mixed layers of a module see: their pre-activations and activations, by forward hooks."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from smx.layers import Mixed


class LayerValues(NamedTuple):
    """What one call of a `Mixed` layer took and gave.

    Attributes:
        layer: its module path.
        z: (B, N, *), or N on another axis.
        h: shaped like z.
    """

    layer: str
    z: Tensor
    h: Tensor


def layer_values(module: nn.Module, *inputs: Tensor) -> tuple[list[LayerValues], tuple[Tensor, ...]]:
    """Run a module without gradients; return what its mixed layers saw, in the order of their calls, and its outputs.

    Args:
        module: run as it is; a layer that is called twice occurs twice.
        inputs: tensors (B, *), one for each argument.
    """
    seen: list[LayerValues] = []
    layers = [(name, layer) for name, layer in module.named_modules() if isinstance(layer, Mixed)]

    def hook(name: str) -> Any:
        return lambda _, taken, given: seen.append(LayerValues(name, taken[0].clone(), given.clone()))

    hooks = [layer.register_forward_hook(hook(name)) for name, layer in layers]
    try:
        with torch.no_grad():
            outputs = module(*inputs)
    finally:
        for handle in hooks:
            handle.remove()
    return seen, (outputs,) if isinstance(outputs, Tensor) else tuple(outputs)
