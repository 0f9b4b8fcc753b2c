"""From raw examples to what a network takes: the one place where values are normalised and shapes are changed."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from smx.arrays import as_taken


def normalise(x: Tensor, maximum: float, input_shape: Sequence[int], dtype: torch.dtype = torch.float32) -> Tensor:
    """Return raw examples (B, *) of any dtype as a network takes them: `dtype` (B, *input_shape), divided by `maximum`.

    Raises:
        InputError: the examples have more or fewer values; see `smx.arrays.as_taken`, which brings them to the shape.
    """
    return as_taken(x, input_shape).to(dtype) / maximum


class Normalize(nn.Module):
    """`normalise` as the first layer of a network that takes raw examples."""

    def __init__(self, maximum: float, input_shape: Sequence[int], dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.maximum, self.input_shape, self.dtype = maximum, tuple(input_shape), dtype

    def forward(self, x: Tensor) -> Tensor:
        """Normalise a batch, (B, *) -> (B, *input_shape)."""
        return normalise(x, self.maximum, self.input_shape, self.dtype)
