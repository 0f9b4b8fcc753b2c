"""The basis as operators of PyTorch, with their gradients: `combine`, and `sampled` for its coefficients.

They are registered in PyTorch's library, so that `torch.compile` takes them as they are, without a graph break. On a
GPU `combine` is one Triton kernel forward and one backward, where Triton is installed; elsewhere it is `eager`.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable
from functools import cache
from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from smx.fused import basis, eager

_library = torch.library.Library("smx", "DEF")  # type: ignore[no-untyped-call]
for _schema in (
    "combine(Tensor z, Tensor coefficients, int dim) -> Tensor",
    "combine_backward(Tensor g, Tensor z, Tensor coefficients, int dim, bool sums) -> (Tensor, Tensor)",
    "coefficients(Tensor choice, Tensor like, float[] numbers) -> Tensor",
    "preferences(Tensor g, float[] numbers) -> Tensor",
):
    _library.define(_schema)  # type: ignore[no-untyped-call]


def combine(z: Tensor, coefficients: Tensor, dim: int = 1) -> Tensor:
    """Apply to each neuron its combination of the basis: h = sum_j c[j, n] b_j(z), see `smx.fused.basis`.

    Only z and the coefficients are kept for the backward pass. Gradients are of first order.

    Args:
        z: (B, N, *), or N on another axis `dim`; any floating dtype.
        coefficients: (5, N), float64 where z is, otherwise float32.
        dim: the axis of the neurons.

    Returns:
        h, of z's shape and dtype, and in channels-last order where z is.
    """
    h: Tensor = _Combine.apply(z, coefficients, dim)  # type: ignore[no-untyped-call]
    return h


def coefficients(choice: Tensor, table: basis.Table, like: Tensor) -> Tensor:
    """Return each neuron's coefficients (5, N), of the dtype and on the device of `like`, for choice int64 (N,)."""
    found: Tensor = torch.ops.smx.coefficients(choice, like, _numbers(table))
    return found


def sampled(logits: Tensor, noise: Tensor, temperature: float, table: basis.Table) -> Tensor:
    """Return each neuron's coefficients (5, N): those of its largest noisy logit, with the gradient of eq. 4.

    Args:
        logits: (N, K), float32 or float64.
        noise: Gumbel noise (N, K), of the same dtype.
        temperature: tau of eq. 2.
        table: the numbers of the pool's activations.
    """
    found: Tensor = _Sampled.apply(logits, noise, temperature, table)  # type: ignore[no-untyped-call]
    return found


class _Combine(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, z: Tensor, coefficients: Tensor, dim: int) -> Tensor:
        ctx.save_for_backward(z, coefficients)
        ctx.dim = dim
        h: Tensor = torch.ops.smx.combine(z, coefficients, dim)
        return h

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, Tensor | None, None]:
        z, coefficients = ctx.saved_tensors
        sums: bool = ctx.needs_input_grad[1]
        g_z, g_coefficients = torch.ops.smx.combine_backward(g, z, coefficients, ctx.dim, sums)
        return g_z, g_coefficients if sums else None, None


class _Sampled(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, noise: Tensor, temperature: float, table: basis.Table) -> Tensor:
        noisy = logits + noise
        ctx.save_for_backward(noisy)
        ctx.temperature, ctx.table = temperature, table
        return coefficients(noisy.argmax(1), table, noisy)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None, None, None]:
        (noisy,) = ctx.saved_tensors
        g_s_NK = torch.ops.smx.preferences(g, _numbers(ctx.table))
        y_NK = torch.softmax(noisy / ctx.temperature, 1)
        g_noisy = torch.ops.aten._softmax_backward_data(g_s_NK, y_NK, 1, y_NK.dtype)
        return g_noisy / ctx.temperature, None, None, None


def _numbers(table: basis.Table) -> list[float]:
    return [number for column in table for number in column]


def _kernels(z: Tensor) -> ModuleType:
    return _triton() or eager if z.is_cuda else eager


@cache
def _triton() -> ModuleType | None:
    return importlib.import_module("smx.fused.triton") if importlib.util.find_spec("triton") else None


def _combine(z: Tensor, coefficients: Tensor, dim: int) -> Tensor:
    z_MNL, as_z = _view(z, dim)
    return as_z(_kernels(z).forward(z_MNL, coefficients))


def _combine_backward(g: Tensor, z: Tensor, coefficients: Tensor, dim: int, sums: bool) -> tuple[Tensor, Tensor]:
    z_MNL, as_z = _view(z, dim)
    g_MNL = _view(g, dim)[0] if g.stride() == z.stride() else _view(torch.empty_like(z).copy_(g), dim)[0]
    g_z, g_coefficients = _kernels(z).backward(g_MNL, z_MNL, coefficients, sums)
    return as_z(g_z), coefficients.new_empty(0) if g_coefficients is None else g_coefficients


def _view(z: Tensor, dim: int) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """Return z as (M, N, L), contiguous, and the way back; channels-last tensors are (M, N, 1) without a copy."""
    dim %= z.dim()
    if not z.is_contiguous() and z.movedim(dim, -1).is_contiguous():
        last = z.movedim(dim, -1)
        return last.reshape(-1, z.shape[dim], 1), lambda h: h.view(last.shape).movedim(-1, dim)
    shape = z.shape
    flat = z.contiguous().view(math.prod(shape[:dim]), shape[dim], math.prod(shape[dim + 1 :]))
    return flat, lambda h: h.view(shape)


def _coefficients(choice: Tensor, like: Tensor, numbers: list[float]) -> Tensor:
    return _table(tuple(numbers), like.dtype, choice.device).index_select(1, choice)


@cache
def _table(numbers: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return (5, K) on a device; kept, because copying it there would end the capture of a CUDA graph."""
    return torch.tensor(numbers, dtype=dtype, device=device).reshape(-1, basis.SIZE).t().contiguous()


def _preferences(g: Tensor, numbers: list[float]) -> Tensor:
    # A product of matrices, written so that autocast leaves it in g's precision.
    return (g[:, :, None] * _table(tuple(numbers), g.dtype, g.device)[:, None, :]).sum(0)


def _combine_fake(z: Tensor, coefficients: Tensor, dim: int) -> Tensor:
    z_MNL, as_z = _view(z, dim)
    return as_z(torch.empty_like(z_MNL))


def _combine_backward_fake(g: Tensor, z: Tensor, coefficients: Tensor, dim: int, sums: bool) -> tuple[Tensor, Tensor]:
    return _combine_fake(z, coefficients, dim), coefficients.new_empty(coefficients.shape if sums else 0)


def _coefficients_fake(choice: Tensor, like: Tensor, numbers: list[float]) -> Tensor:
    return like.new_empty(basis.SIZE, len(choice))


def _preferences_fake(g: Tensor, numbers: list[float]) -> Tensor:
    return g.new_empty(g.shape[1], len(numbers) // basis.SIZE)


for _name, _run, _fake in (
    ("combine", _combine, _combine_fake),
    ("combine_backward", _combine_backward, _combine_backward_fake),
    ("coefficients", _coefficients, _coefficients_fake),
    ("preferences", _preferences, _preferences_fake),
):
    _library.impl(_name, _run, "CompositeExplicitAutograd")  # type: ignore[no-untyped-call]
    torch.library.register_fake(f"smx::{_name}", _fake, lib=_library)
