"""The multilayer perceptrons that `smx train` builds."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn


def mlp(sizes: Sequence[int], activation: Callable[[int], nn.Module]) -> nn.Sequential:
    """Build a multilayer perceptron, (B, sizes[0]) -> logits (B, sizes[-1]).

    Hidden layer i is `layer{i}` with parts `linear` and `activation`; the last one is `output`.

    Args:
        sizes: inputs, neurons of each hidden layer, outputs.
        activation: makes the activation of hidden layer i = 1, 2, ... (a `Selective` or a `Mixed`, for example).
    """
    hidden = [
        (
            f"layer{i}",
            nn.Sequential(OrderedDict(linear=nn.Linear(sizes[i - 1], sizes[i]), activation=activation(i))),
        )
        for i in range(1, len(sizes) - 1)
    ]
    return nn.Sequential(OrderedDict([*hidden, ("output", nn.Linear(sizes[-2], sizes[-1]))]))


class Fixed(nn.Module):
    """One activation for all neurons, as an ordinary network has it: the baselines are made of it."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, z: Tensor) -> Tensor:
        """Apply it."""
        return self.function(z)


class Normalize(nn.Module):
    """Raw values, of any dtype and shape (B, *), -> float32 (B, F) as in training: flattened, divided by `maximum`."""

    def __init__(self, maximum: float) -> None:
        super().__init__()
        self.maximum = maximum

    def forward(self, x: Tensor) -> Tensor:
        """Normalise a batch."""
        return x.flatten(1).to(torch.float32) / self.maximum
