"""The basis (`smx.fused.basis`) as plain formulas, for `torch.compile` to make kernels of.

All five functions come of e = exp(-|z|), which can't overflow. Shapes: z (B, N, *), or N on another axis `dim`.
"""

from __future__ import annotations

import torch
from torch import Tensor


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


def backward_from_result(g: Tensor, h: Tensor, coefficients: Tensor, dim: int) -> Tensor:
    """Return g dh/dz, of h's shape and dtype, where the choice is fixed, given the result h in place of z."""
    up, down, expm1, sigmoid, tanh = (_along(c, h, dim) for c in coefficients)
    y, g_h = h.to(coefficients.dtype), g.to(coefficients.dtype)
    below = down + torch.where(expm1 != 0, y + expm1, 0.0)  # expm1's coefficient times exp(z) is that much more than h
    bounded = torch.where((sigmoid != 0) | (tanh != 0), y, 0.0)  # of the others, the square may overflow
    slope = torch.where(y > 0, up, below) + sigmoid * bounded * (1 - bounded) + tanh * (1 - bounded * bounded)
    return (g_h * slope).to(h.dtype)


def _basis(z: Tensor) -> tuple[Tensor, ...]:
    positive, e = z > 0, torch.exp(-z.abs())
    return (
        torch.clamp_min(z, 0),
        torch.clamp_max(z, 0),
        torch.where(positive, 0.0, e - 1),
        torch.where(positive, 1.0, e) / (1 + e),
        torch.where(positive, 1 - e * e, e * e - 1) / (1 + e * e),
    )


def _along(number: Tensor, z: Tensor, dim: int) -> Tensor:
    return number.reshape(-1, *[1] * (z.dim() - 1 - dim % z.dim()))
