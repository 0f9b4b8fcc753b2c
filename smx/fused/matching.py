"""The moments of all candidates by those of the basis, for `smx.functional.matching`."""

from __future__ import annotations

import torch
from torch import Tensor

from smx.fused import traced
from smx.fused.basis import Table, arithmetic_dtype, coefficients, made_once
from smx.fused.eager import product_dtype

LARGE = 2**22
"""Values whose basis and squares are in memory at a time: 160 MiB in float32."""
RELU = (1.0, 0.0, 0.0, 0.0, 0.0)
"""ReLU's row of a table."""


def moments(z: Tensor, table: Table, dim: int) -> Tensor:
    """Return mean and variance of ReLU(z) and of every f_k(z), (2, 1 + K, N); see `smx.functional.moments`.

    Where one function of an activation's combination is not 0, its others are. So the squares of the activations are
    combinations, too: of the squares of the basis, with the squares of the coefficients. The variance loses digits
    where it is small beside the square of the mean. In float32 that counts where the mean is hundreds of deviations, as
    with inputs that are not normalised; there `smx.functional.moments_plain` is exact.
    """
    dtype = arithmetic_dtype(z)
    weights = _weights(table, dtype, z.device)
    means = _means(z.to(dtype), dim)
    products = torch.empty((2, 1 + len(table), z.shape[dim]), dtype=weights.dtype, device=z.device)
    torch.bmm(weights, means.to(weights.dtype), out=products)  # which autocast does not round, because of `out`
    mean, square = products
    square.addcmul_(mean, mean, value=-1)
    return products.to(dtype)


def _means(z: Tensor, dim: int) -> Tensor:
    """Return the means of the basis and of its squares, (2, 5, N); of a large z in parts, which need less memory."""
    sizes = [0 if axis == dim % z.dim() else size for axis, size in enumerate(z.shape)]
    if z.numel() > LARGE and max(sizes) > 1:
        axis = sizes.index(max(sizes))
        parts = z.tensor_split(2, axis)
        return torch.stack([_means(part, dim) * (part.shape[axis] / z.shape[axis]) for part in parts]).sum(0)
    others = [2 + axis for axis in range(z.dim()) if axis != dim % z.dim()]
    if torch.compiler.is_compiling():
        functions = traced.basis(z)
        means = [x.mean([axis - 2 for axis in others]) for x in (*functions, *(x * x for x in functions))]
        return torch.stack(means).view(2, 5, -1)
    powers = torch.empty((2, 5, *z.shape), dtype=z.dtype, device=z.device)
    basis, squares = powers
    up, down, expm1, sigmoid, tanh = basis
    torch.clamp_min(z, 0, out=up)
    torch.clamp_max(z, 0, out=down)
    torch.exp(down, out=expm1).sub_(1)  # faster than expm1, and exact enough for a mean
    torch.sigmoid(z, out=sigmoid)
    torch.tanh(z, out=tanh)
    torch.mul(basis, basis, out=squares)
    return powers.mean(others)


@made_once
def _weights(table: Table, dtype: torch.dtype, device: torch.device) -> Tensor:
    c = coefficients((RELU, *table), torch.float64, "cpu").t()
    return torch.stack([c, c.square()]).to(device, product_dtype(dtype, device))
