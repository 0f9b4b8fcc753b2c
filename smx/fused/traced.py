"""The basis (`smx.fused.basis`) as plain formulas, for `torch.compile` to make kernels of.

All five functions come of e = exp(-|z|), which can't overflow. Shapes: z (B, N, *), or N on another axis `dim`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from smx.fused.basis import Table


def selective(z: Tensor, logits: Tensor, noise: Tensor, temperature: float, table: Table, dim: int) -> Tensor:
    """Do what `smx.fused.operators.selective` does."""
    h: Tensor = _Selective.apply(z, logits, noise, temperature, table, dim)  # type: ignore[no-untyped-call]
    return h


def combine(z: Tensor, choice: Tensor, table: Table, dim: int) -> Tensor:
    """Do what `smx.fused.operators.combine` does, for a choice int64 (N,)."""
    h: Tensor = _Combine.apply(z, _coefficients(z, table)[:, choice], dim)  # type: ignore[no-untyped-call]
    return h


class _Selective(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, z: Tensor, logits: Tensor, noise: Tensor, temperature: float, table: Table, dim: int
    ) -> Tensor:
        coefficients = _coefficients(z, table)
        noisy = logits.to(coefficients.dtype) + noise.to(coefficients.dtype)
        choice = noisy.argmax(1)
        ctx.save_for_backward(z, noisy, choice)
        ctx.dtype, ctx.temperature, ctx.table, ctx.dim = logits.dtype, temperature, table, dim
        return forward(z, coefficients[:, choice], dim)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, Tensor, None, None, None, None]:
        z, noisy, choice = ctx.saved_tensors
        coefficients = _coefficients(z, ctx.table)
        g_z, sums_JN = backward(g, z, coefficients[:, choice], ctx.dim)
        g_s_NK = (sums_JN.t()[:, :, None] * coefficients).sum(1)  # not a matrix product, which autocast would round
        y_NK = torch.softmax(noisy / ctx.temperature, 1)
        g_logits = y_NK * (g_s_NK - (y_NK * g_s_NK).sum(1, keepdim=True)) / ctx.temperature
        return g_z, g_logits.to(ctx.dtype), None, None, None, None


class _Combine(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, z: Tensor, coefficients: Tensor, dim: int) -> Tensor:
        ctx.save_for_backward(z, coefficients)  # not h: what comes behind a graph break may write into it
        ctx.dim = dim
        return forward(z, coefficients, dim)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None, None]:
        z, coefficients = ctx.saved_tensors
        return backward(g, z, coefficients, ctx.dim)[0], None, None


def forward(z: Tensor, coefficients: Tensor, dim: int) -> Tensor:
    """Return h = sum_j c[j, n] b_j(z), of z's shape and dtype, for coefficients (5, N)."""
    up, down, expm1, sigmoid, tanh = (_along(c, z, dim) for c in coefficients)
    b_up, b_down, b_expm1, b_sigmoid, b_tanh = _basis(z.to(coefficients.dtype))
    return (up * b_up + down * b_down + expm1 * b_expm1 + sigmoid * b_sigmoid + tanh * b_tanh).to(z.dtype)


def backward(g: Tensor, z: Tensor, coefficients: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """Return g dh/dz, of z's shape and dtype, and the sums of g b_j(z) over all axes but the neurons', (5, N)."""
    up, down, expm1, sigmoid, tanh = (_along(c, z, dim) for c in coefficients)
    x, g_h = z.to(coefficients.dtype), g.to(coefficients.dtype)
    basis = _basis(x)
    *_, b_expm1, b_sigmoid, b_tanh = basis
    slope = torch.where(x > 0, up, down + expm1 * (1 + b_expm1))
    slope = slope + sigmoid * b_sigmoid * (1 - b_sigmoid) + tanh * (1 - b_tanh * b_tanh)
    others = [axis for axis in range(z.dim()) if axis != dim % z.dim()]
    return (g_h * slope).to(z.dtype), torch.stack([(g_h * b).sum(others) for b in basis])


def _basis(z: Tensor) -> tuple[Tensor, ...]:
    positive, e = z > 0, torch.exp(-z.abs())
    return (
        torch.clamp_min(z, 0),
        torch.clamp_max(z, 0),
        torch.where(positive, 0.0, e - 1),
        torch.where(positive, 1.0, e) / (1 + e),
        torch.where(positive, 1 - e * e, e * e - 1) / (1 + e * e),
    )


def _coefficients(z: Tensor, table: Table) -> Tensor:
    return torch.tensor(table, dtype=torch.promote_types(z.dtype, torch.float32), device=z.device).t()


def _along(number: Tensor, z: Tensor, dim: int) -> Tensor:
    return number.reshape(-1, *[1] * (z.dim() - 1 - dim % z.dim()))
