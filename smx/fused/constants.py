"""Small tensors that are made once and stay on their device."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec

import torch
from torch import Tensor

P = ParamSpec("P")


def made_once(make: Callable[P, Tensor]) -> Callable[P, Tensor]:
    """Return `make` with a cache, whose keys are the arguments. A tensor that does not last is not kept."""
    cache: dict[object, Tensor] = {}

    @wraps(make)
    def get(*args: P.args, **kwargs: P.kwargs) -> Tensor:
        key = (*args, *kwargs.items())
        tensor = cache.get(key)
        if tensor is None:
            tensor = make(*args, **kwargs)
            if lasts(tensor):
                cache[key] = tensor
        return tensor

    return get


def lasts(tensor: Tensor) -> bool:
    """Whether a tensor keeps its values. One of `FakeTensorMode` has none; one of a CUDA graph is overwritten."""
    return type(tensor) is Tensor and not (tensor.is_cuda and torch.cuda.is_current_stream_capturing())
