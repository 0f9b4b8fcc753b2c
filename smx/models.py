"""The networks that `smx train` brings along: a multilayer perceptron and a small convolutional network."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from itertools import pairwise

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


def cnn(
    input_shape: Sequence[int], num_classes: int, channels: Sequence[int], activation: Callable[[int], nn.Module]
) -> nn.Sequential:
    """Build a convolutional network, (B, C, H, W) -> logits (B, num_classes).

    Block i is `layer{i}` with parts `conv` (3x3, without bias), `norm`, in all blocks but the last `pool`, which halves
    height and width, and `activation`, after the pool because there it has a quarter of the values to compute (for
    activations that only rise the order plays no part); then come `flatten` and `output`.

    Args:
        input_shape: (C, H, W) of one image.
        num_classes: the outputs.
        channels: of each block.
        activation: makes the activation of block i = 1, 2, ..., of `channels[i - 1]` channels on axis 1.

    Raises:
        ValueError: the image is too small to be halved so often.
    """
    inputs, height, width = input_shape
    halvings = len(channels) - 1
    size = (height >> halvings) * (width >> halvings)
    if size == 0:
        raise ValueError(f"a cnn of {len(channels)} blocks needs images of {2**halvings}x{2**halvings} or more")
    blocks = []
    for i, (before, after) in enumerate(pairwise((inputs, *channels)), 1):
        pool = OrderedDict(pool=nn.MaxPool2d(2)) if i <= halvings else {}
        parts = OrderedDict(
            conv=nn.Conv2d(before, after, 3, padding=1, bias=False),
            norm=nn.BatchNorm2d(after),
            **pool,
            activation=activation(i),
        )
        blocks.append((f"layer{i}", nn.Sequential(parts)))
    output = nn.Linear(channels[-1] * size, num_classes)
    return nn.Sequential(OrderedDict([*blocks, ("flatten", nn.Flatten()), ("output", output)]))


class Fixed(nn.Module):
    """One activation for all neurons, as an ordinary network has it: the baselines are made of it."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, z: Tensor) -> Tensor:
        """Apply it."""
        return self.function(z)


class Normalize(nn.Module):
    """Raw values, of any dtype and shape (B, *), -> (B, *input_shape) as in training: divided by `maximum`.

    Args:
        maximum: of the raw values.
        input_shape: what the network takes: (F,), or (C, H, W) of an image.
        channels_last: the raw examples are (H, W, C), and the network takes (C, H, W).
        dtype: what the network takes.
    """

    def __init__(
        self,
        maximum: float,
        input_shape: Sequence[int],
        *,
        channels_last: bool = False,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        self.maximum = maximum
        self.input_shape = tuple(input_shape)
        self.channels_last = channels_last
        self.dtype = dtype

    def forward(self, x: Tensor) -> Tensor:
        """Normalise a batch."""
        if self.channels_last:
            x = x.movedim(-1, 1)
        return x.reshape(-1, *self.input_shape).to(self.dtype) / self.maximum
