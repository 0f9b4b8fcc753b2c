"""The backend under `torch.compile`: plain formulas, which the compiler turns into kernels; see README.md here.

The functions are those of `smx.fused.operators.Backend`. The numbers of a neuron are its 5 coefficients c: c_5N, or
c_6N with a constant after them. Where neurons are sorted by a choice that stays, the numbers are its `Groups`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from smx.fused.basis import Table, arithmetic_dtype, coefficients

Groups = tuple[tuple[tuple[float, ...], int], ...]
"""Neurons side by side that share an activation: its 5 coefficients, and how many neurons."""


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


def forward(z: Tensor, c: Tensor | Groups, dim: int) -> Tensor:
    """Return h."""
    if isinstance(c, tuple):
        x = z.to(arithmetic_dtype(z))
        return torch.cat([_of_group(part, row) for part, row in _parts(x, c, dim)], dim).to(z.dtype)
    up, down, expm1, sigmoid, tanh, *constant = _along(c, z, dim)
    b_up, b_down, b_expm1, b_sigmoid, b_tanh = basis(z.to(c.dtype))
    h = up * b_up + down * b_down + expm1 * b_expm1 + sigmoid * b_sigmoid + tanh * b_tanh
    return (h + constant[0] if constant else h).to(z.dtype)


def backward(g: Tensor, z: Tensor, c: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """Return g_z, and the sums of g b_j(z), (5, N)."""
    up, down, expm1, sigmoid, tanh, *_ = _along(c, z, dim)
    x, g_h = z.to(c.dtype), g.to(c.dtype)
    functions = basis(x)
    *_, b_expm1, b_sigmoid, b_tanh = functions
    slope = torch.where(x > 0, up, down + expm1 * (1 + b_expm1))
    slope = slope + sigmoid * b_sigmoid * (1 - b_sigmoid) + tanh * (1 - b_tanh * b_tanh)
    others = [axis for axis in range(z.dim()) if axis != dim % z.dim()]
    return (g_h * slope).to(z.dtype), torch.stack([(g_h * b).sum(others) for b in functions])


def sums_of_pool(sums_5N: Tensor, table: Table) -> Tensor:
    """Return the sums of g f_k(z), (K, N). Not by a matrix product, which autocast would round."""
    c_5K = coefficients(table, sums_5N.dtype, sums_5N.device)
    return (c_5K[:, :, None] * sums_5N[:, None]).sum(0)


def backward_fixed(g: Tensor, kept: Tensor, c: Tensor | Groups, dim: int, keeps_result: bool) -> Tensor:
    """Return g_z: of groups, for which h is kept, or of coefficients c_5N, for which z is."""
    assert keeps_result == isinstance(c, tuple)
    if not isinstance(c, tuple):
        return backward(g, kept, c, dim)[0]
    dtype = arithmetic_dtype(kept)
    pairs = zip(_parts(g.to(dtype), c, dim), _parts(kept.to(dtype), c, dim), strict=True)
    return torch.cat([_gradient(part, h, row) for (part, row), (h, _) in pairs], dim).to(kept.dtype)


def _parts(x: Tensor, groups: Groups, dim: int) -> list[tuple[Tensor, tuple[float, ...]]]:
    parts = torch.split_with_sizes(x, [size for _, size in groups], dim)
    return [(part, row) for part, (row, _) in zip(parts, groups, strict=True)]


def _of_group(z: Tensor, row: tuple[float, ...]) -> Tensor:
    up, down, expm1, sigmoid, tanh = row
    if sigmoid:
        return torch.sigmoid(z)
    if tanh:
        return 2 * torch.sigmoid(2 * z) - 1  # four times as fast as the compiler's tanh
    above, below = up * torch.clamp_min(z, 0), torch.clamp_max(z, 0)
    if expm1:
        return above + expm1 * torch.expm1(below)
    return above + down * below if down else above


def _gradient(g: Tensor, h: Tensor, row: tuple[float, ...]) -> Tensor:
    """Return g dh/dz by the result, as `eager` does."""
    up, down, expm1, sigmoid, tanh = row
    if sigmoid:
        return g * (h - h * h)
    if tanh:
        return g * (1 - h * h)
    return torch.where(h > 0, up * g, (expm1 + h if expm1 else down) * g)


def basis(z: Tensor) -> tuple[Tensor, ...]:
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
