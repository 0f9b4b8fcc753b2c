"""PyTorch as the reference of an exported file."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from smx.hooks import LayerValues, layer_values
from smx.runtime.parity.locate import LayerArrays, Reference, Values


def in_parts(module: nn.Module, dtype: torch.dtype = torch.float32) -> Reference:
    """Return a function that runs a copy of a module in `eval()`, its mixed layers on given values.

    `smx.runtime.parity.locate` needs one in float32 and one in float64.

    Args:
        module: takes tensors (B, *); integers keep their dtype.
        dtype: of its weights and of floating inputs.
    """
    module = copy.deepcopy(module).eval().to(dtype)

    def tensor(values: NDArray[Any]) -> Tensor:
        x = torch.from_numpy(np.ascontiguousarray(values))
        return x.to(dtype) if x.is_floating_point() else x

    def run(*inputs: NDArray[Any], given: Sequence[LayerArrays]) -> Values:
        parts = [LayerValues(part.layer, tensor(part.z), tensor(part.h)) for part in given]
        layers, outputs = layer_values(module, *map(tensor, inputs), substitutes=parts)
        seen = [LayerArrays(part.layer, part.z.numpy(), part.h.numpy()) for part in layers]
        return Values(seen, [output.numpy() for output in outputs])

    return run
