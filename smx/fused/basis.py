"""The basis: five functions whose combinations are the activations; see README.md here.

f_k(z) = sum over j of C[j, k] b_j(z),   b(z) = (max(z, 0), min(z, 0), expm1(min(z, 0)), sigmoid(z), tanh(z))
"""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence
from functools import wraps
from typing import ParamSpec

import torch
from torch import Tensor

from smx import activations
from smx.activations import BUILT_IN, Activation, is_built_in
from smx.hinges import hinge_of

P = ParamSpec("P")

Table = tuple[tuple[float, ...], ...]
"""The transpose of C: for each of the K activations of a pool its 5 coefficients."""


def table_of(pool: Sequence[Activation], chosen: Container[int] | None = None) -> Table | None:
    """Return the coefficients of a pool, or None if one of its activations is no combination of the basis.

    Only built-in activations are combinations: of a user's, the function alone is known.

    Args:
        pool: K activations.
        chosen: indices of the activations that occur; the others are not looked at and get zeros. None: all occur.
    """
    rows = [
        _NONE if chosen is not None and k not in chosen else _ROWS.get(f.name) if is_built_in(f) else None
        for k, f in enumerate(pool)
    ]
    return None if None in rows else tuple(row for row in rows if row is not None)


def coefficients(table: Table, dtype: torch.dtype, device: torch.device | str) -> Tensor:
    """Return C as a tensor (5, K)."""
    return torch.tensor(table, dtype=dtype, device=device).t()


def arithmetic_dtype(z: Tensor) -> torch.dtype:
    """Return the dtype in which the basis is computed: float64 if z has it, otherwise float32."""
    return torch.float64 if z.dtype == torch.float64 else torch.float32


def made_once(make: Callable[P, Tensor]) -> Callable[P, Tensor]:
    """Return `make` with a cache, whose keys are the arguments. A tensor that does not last is not kept.

    `torch.compile` has no part in it: it would compile a network again whenever the cache has grown.
    """
    cache: dict[object, Tensor] = {}

    @wraps(make)
    def get(*args: P.args, **kwargs: P.kwargs) -> Tensor:
        if torch.compiler.is_compiling():
            return make(*args, **kwargs)
        key = (*args, *kwargs.items())
        tensor = cache.get(key)
        if tensor is None:
            tensor = make(*args, **kwargs)
            if lasts(tensor):
                cache[key] = tensor
        return tensor

    return get


def lasts(tensor: Tensor) -> bool:
    """Tell whether a tensor keeps its values: one of `FakeTensorMode` has none, one of a CUDA graph is overwritten."""
    return type(tensor) is Tensor and not (tensor.is_cuda and torch.cuda.is_current_stream_capturing())


def _row(name: str) -> tuple[float, ...] | None:
    if name in ("sigmoid", "tanh"):
        return (0.0, 0.0, 0.0, float(name == "sigmoid"), float(name == "tanh"))
    onnx = activations.get(name).onnx
    hinge = hinge_of(onnx) if onnx is not None else None
    # `eager` relies on this: for z < 0 a combination is a line or a curve, not both.
    if hinge is None or hinge.constant != -hinge.exponential or (hinge.exponential and hinge.negative):
        return None
    return (hinge.positive, hinge.negative, hinge.exponential, 0.0, 0.0)


_NONE = (0.0,) * 5
_ROWS = {name: row for name in BUILT_IN if (row := _row(name)) is not None}
