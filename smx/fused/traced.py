"""The backend under `torch.compile`: plain formulas, which the compiler turns into kernels; see README.md here.

The functions are those of `smx.fused.operators.Backend`. The numbers of a neuron are its 5 coefficients c: c_5N, or
c_6N with a constant after them.
"""

from __future__ import annotations

import torch
from torch import Tensor

from smx.fused.basis import Table, arithmetic_dtype, coefficients


def numbers(table: Table, choice_N: Tensor, z: Tensor, dim: int, fixed: bool) -> tuple[Tensor, Tensor]:
    """Return the coefficients of each neuron's activation, (5, N)."""
    c_5N = coefficients(table, arithmetic_dtype(z), z.device)[:, choice_N]
    return c_5N, c_5N


def rescaled(c_5N: Tensor, numbers: Tensor, affine_2N: Tensor) -> tuple[Tensor, Tensor]:
    """Return the numbers of scale f(z) + shift, (6, N)."""
    c_6N = torch.cat([c_5N * affine_2N[:1], affine_2N[1:]]).to(c_5N.dtype)
    return c_6N, c_6N


def sum_of_gradient(g: Tensor, sums_5N: Tensor, dim: int) -> Tensor:
    """Return the sum of g, (N,)."""
    return g.to(sums_5N.dtype).sum([axis for axis in range(g.dim()) if axis != dim % g.dim()])


def forward(z: Tensor, c: Tensor, dim: int) -> Tensor:
    """Return h."""
    up, down, expm1, sigmoid, tanh, *constant = _along(c, z, dim)
    b_up, b_down, b_expm1, b_sigmoid, b_tanh = _basis(z.to(c.dtype))
    h = up * b_up + down * b_down + expm1 * b_expm1 + sigmoid * b_sigmoid + tanh * b_tanh
    return (h + constant[0] if constant else h).to(z.dtype)


def backward(g: Tensor, z: Tensor, c: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """Return g_z, and the sums of g b_j(z), (5, N)."""
    up, down, expm1, sigmoid, tanh, *_ = _along(c, z, dim)
    x, g_h = z.to(c.dtype), g.to(c.dtype)
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


def _along(c: Tensor, z: Tensor, dim: int) -> tuple[Tensor, ...]:
    """Return the numbers in shapes that are broadcast along all axes of z but the neurons'."""
    return c.reshape(len(c), -1, *[1] * (z.dim() - 1 - dim % z.dim())).unbind()
