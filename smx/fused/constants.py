"""Small tensors that are made once and then stay where they are needed."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec

import torch
from torch import Tensor

P = ParamSpec("P")

_kept: list[dict[object, Tensor]] = []


def made_once(make: Callable[P, Tensor]) -> Callable[P, Tensor]:
    """Return `make` with a memory, by its arguments: the tensor stays on its device, as a CUDA graph needs it.

    What is made while PyTorch only pretends to compute, or captures a graph, is not kept: see `lasts`.
    """
    kept: dict[object, Tensor] = {}
    _kept.append(kept)

    @wraps(make)
    def get(*args: P.args, **kwargs: P.kwargs) -> Tensor:
        key = (*args, *kwargs.items())
        found = kept.get(key)
        if found is None:
            found = make(*args, **kwargs)
            if lasts(found):
                kept[key] = found
        return found

    return get


def forget() -> None:
    """Let everything be made anew."""
    for tensors in _kept:
        tensors.clear()


def lasts(tensor: Tensor) -> bool:
    """Whether a tensor has its values from now on: not so under `FakeTensorMode`, and in a graph's memory."""
    return type(tensor) is Tensor and not (tensor.is_cuda and torch.cuda.is_current_stream_capturing())
