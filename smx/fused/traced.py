"""The backend under `torch.compile`: plain formulas, which the compiler turns into kernels; see README.md here.

The functions are those of `smx.fused.operators.Backend`. The numbers of a neuron are its 5 coefficients c: c_5N.
"""

from __future__ import annotations

import torch
from torch import Tensor

from smx.fused.basis import Table, arithmetic_dtype, coefficients


def numbers(table: Table, choice_N: Tensor, z: Tensor, dim: int, fixed: bool) -> tuple[Tensor, Tensor]:
    """Return the coefficients of each neuron's activation, (5, N)."""
    c_5N = coefficients(table, arithmetic_dtype(z), z.device)[:, choice_N]
    return c_5N, c_5N


def forward(z: Tensor, c_5N: Tensor, dim: int) -> Tensor:
    """Return h."""
    up, down, expm1, sigmoid, tanh = _along(c_5N, z, dim)
    b_up, b_down, b_expm1, b_sigmoid, b_tanh = _basis(z.to(c_5N.dtype))
    return (up * b_up + down * b_down + expm1 * b_expm1 + sigmoid * b_sigmoid + tanh * b_tanh).to(z.dtype)


def backward(g: Tensor, z: Tensor, c_5N: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """Return g_z, and the sums of g b_j(z), (5, N)."""
    up, down, expm1, sigmoid, tanh = _along(c_5N, z, dim)
    x, g_h = z.to(c_5N.dtype), g.to(c_5N.dtype)
    basis = _basis(x)
    *_, b_expm1, b_sigmoid, b_tanh = basis
    slope = torch.where(x > 0, up, down + expm1 * (1 + b_expm1))
    slope = slope + sigmoid * b_sigmoid * (1 - b_sigmoid) + tanh * (1 - b_tanh * b_tanh)
    others = [axis for axis in range(z.dim()) if axis != dim % z.dim()]
    return (g_h * slope).to(z.dtype), torch.stack([(g_h * b).sum(others) for b in basis])


def sums_of_pool(sums_5N: Tensor, table: Table) -> Tensor:
    """Return the sums of g f_k(z), (K, N). Not by a matrix product, which autocast would round."""
    c_5K = coefficients(table, sums_5N.dtype, sums_5N.device)
    return (c_5K[:, :, None] * sums_5N[:, None]).sum(0)


def backward_fixed(g: Tensor, z: Tensor, c_5N: Tensor, dim: int, keeps_result: bool) -> Tensor:
    """Return g_z. z is kept, not h: what comes after a graph break may write into h."""
    assert not keeps_result
    return backward(g, z, c_5N, dim)[0]


def _basis(z: Tensor) -> tuple[Tensor, ...]:
    """Return the five functions at z, all of them from e = exp(-|z|), which can't overflow."""
    positive, e = z > 0, torch.exp(-z.abs())
    return (
        torch.clamp_min(z, 0),
        torch.clamp_max(z, 0),
        torch.where(positive, 0.0, e - 1),
        torch.where(positive, 1.0, e) / (1 + e),
        torch.where(positive, 1 - e * e, e * e - 1) / (1 + e * e),
    )


def _along(c_5N: Tensor, z: Tensor, dim: int) -> tuple[Tensor, ...]:
    """Return the five coefficients in shapes that are broadcast along all axes of z but the neurons'."""
    return c_5N.reshape(5, -1, *[1] * (z.dim() - 1 - dim % z.dim())).unbind()
