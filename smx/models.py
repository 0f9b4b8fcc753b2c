"""The networks that `smx train` brings along, and ordinary activations for them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from itertools import pairwise

from torch import Tensor, nn

from smx.errors import InputError


def mlp(sizes: Sequence[int], activation: Callable[[int], nn.Module] = lambda i: nn.ReLU()) -> nn.Sequential:
    """Build a multilayer perceptron, (B, sizes[0]) -> logits (B, sizes[-1]).

    Hidden layer i = 1, 2, ... is `layer{i}` with parts `linear` and `activation`, which is `activation(i)`; the last
    layer is `output`.
    """
    hidden = [
        (f"layer{i}", nn.Sequential(OrderedDict(linear=nn.Linear(before, after), activation=activation(i))))
        for i, (before, after) in enumerate(pairwise(sizes[:-1]), 1)
    ]
    return nn.Sequential(OrderedDict([*hidden, ("output", nn.Linear(sizes[-2], sizes[-1]))]))


def cnn(input_shape: Sequence[int], num_classes: int, channels: Sequence[int]) -> nn.Sequential:
    """Build a convolutional network with ReLU, (B, C, H, W) -> logits (B, num_classes); `input_shape` is (C, H, W).

    Block i, of `channels[i - 1]` channels, is `layer{i}` with parts `conv` (3x3, without bias), `norm`, `pool` (which
    halves height and width; the last block has none) and `activation`. The activation comes after the pool, because
    there it has a quarter of the values to compute; for monotonic activations the result is the same. After the blocks
    come `flatten` and `output`.

    Raises:
        InputError: the examples are no images, or too small to be halved so often.
    """
    halvings = len(channels) - 1
    if len(input_shape) != 3 or min(input_shape[1:]) < 2**halvings:
        smallest, got = f"{2**halvings}x{2**halvings}", tuple(input_shape)
        raise InputError(
            f"the cnn takes images of {smallest} or more: (H, W), (C, H, W), or (H, W, C) with C of 1 or 3; got {got}"
        )
    inputs, height, width = input_shape
    size = (height >> halvings) * (width >> halvings)
    blocks = []
    for i, (before, after) in enumerate(pairwise((inputs, *channels)), 1):
        pool = OrderedDict(pool=nn.MaxPool2d(2)) if i <= halvings else {}
        parts = OrderedDict(
            conv=nn.Conv2d(before, after, 3, padding=1, bias=False),
            norm=nn.BatchNorm2d(after),
            **pool,
            activation=nn.ReLU(),
        )
        blocks.append((f"layer{i}", nn.Sequential(parts)))
    output = nn.Linear(channels[-1] * size, num_classes)
    return nn.Sequential(OrderedDict([*blocks, ("flatten", nn.Flatten()), ("output", output)]))


class Fixed(nn.Module):
    """One activation for all neurons, as an ordinary network has it. The baselines are made of it."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, z: Tensor) -> Tensor:
        """Apply the activation elementwise."""
        return self.function(z)
