"""A network of your own for `smx train --model my_network:Net`: plain PyTorch, which knows nothing of smx.

smx calls `Net(input_shape=..., num_classes=...)` for the data at hand, finds the activations, calls of `F.relu` among
them, and puts neurons that choose in their place.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class Block(nn.Module):
    """Two convolutions beside a shortcut (He et al., 2016): (B, N, H, W) -> (B, N, H, W)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        """Run the block."""
        h = F.relu(self.norm1(self.conv1(x)))
        return F.relu(x + self.norm2(self.conv2(h)))


class Net(nn.Module):
    """A small residual network: images (B, C, H, W) -> logits (B, num_classes)."""

    def __init__(self, input_shape: tuple[int, int, int], num_classes: int, channels: int = 16) -> None:
        super().__init__()
        self.stem = nn.Conv2d(input_shape[0], channels, 3, padding=1)
        self.blocks = nn.Sequential(Block(channels), nn.MaxPool2d(2), Block(channels))
        self.output = nn.Linear(channels, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Classify a batch."""
        features = self.blocks(F.gelu(self.stem(x)))
        return self.output(features.mean((2, 3)))
