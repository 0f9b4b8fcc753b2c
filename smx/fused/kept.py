"""What follows from a tensor, kept until the tensor changes."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from smx.fused.basis import lasts


class OfTensor:
    """Keeps one result; a copy, or what is loaded of it, begins empty.

    Nothing is kept of a tensor on a GPU, where a CUDA graph changes values without a trace, nor under `torch.compile`,
    nor what inference mode made, which training could not use.
    """

    def __init__(self) -> None:
        self._tensor: Tensor | None = None
        self._version, self._result = -1, torch.empty(0)

    def __call__(self, tensor: Tensor, compute: Callable[[Tensor], Tensor]) -> Tensor:
        """Return what `compute` returns for the tensor, or has returned for the values that it has."""
        if torch.compiler.is_compiling() or tensor.device.type != "cpu" or tensor.is_inference():
            return compute(tensor)
        if self._tensor is not tensor or self._version != tensor._version:
            result = compute(tensor)
            if not lasts(result) or result.is_inference():
                return result
            self._tensor, self._version, self._result = tensor, tensor._version, result
        return self._result

    def __deepcopy__(self, memo: object) -> OfTensor:
        return OfTensor()

    def __reduce__(self) -> tuple[type[OfTensor], tuple[()]]:
        return OfTensor, ()
