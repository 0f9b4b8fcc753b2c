"""What tests ask of networks with selective and mixed layers."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

import smx


class Net(nn.Module):
    """A network of the given parts, whose forward is a function of itself and of its input."""

    def __init__(self, function: Callable[[Any, Tensor], Any], **parts: Any) -> None:
        super().__init__()
        self.function = function
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, x: Tensor) -> Any:
        return self.function(self, x)


def some(neurons: int, dim: int = 1, seed: int = 0) -> smx.Mixed:
    """Return a mixed layer whose neurons have random choices of the paper's pool."""
    return smx.Mixed(torch.randint(6, (neurons,), generator=torch.Generator().manual_seed(seed)), dim=dim)


def selectives(module: nn.Module) -> dict[str, int]:
    """Return the selective layers and their neurons, in the order of the tree."""
    return {path: part.num_features for path, part in module.named_modules() if isinstance(part, smx.Selective)}


def favour(module: nn.Module, *names: str) -> nn.Module:
    """Make the neurons of the layers choose the activations of these names; of one for all."""
    layers = [part for part in module.modules() if isinstance(part, smx.Selective)]
    with torch.no_grad():
        for layer, name in zip(layers, names if len(names) > 1 else names * len(layers), strict=True):
            layer.logits[:, [activation.name for activation in layer.pool].index(name)] = 1.0
    return module


def same(a: nn.Module, b: nn.Module, *inputs: Tensor) -> bool:
    """Tell whether two networks compute the same in eval(), but for rounding."""
    a, b = copy.deepcopy(a).eval(), copy.deepcopy(b).eval()
    with torch.no_grad():
        torch.testing.assert_close(a(*inputs), b(*inputs), atol=1e-5, rtol=1e-4)
    return True
