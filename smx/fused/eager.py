"""The basis (`smx.fused.basis`) in PyTorch's own operators, a block of examples at a time.

Everything comes of one sigmoid, which is the cheapest of PyTorch's exponentials on a CPU: half the time of its exp, a
sixth of its tanh. With r = sigmoid(z) - 1/2:

    exp(min(z, 0)) = min(sigmoid / (1 - sigmoid), 1)
    tanh(z)        = r / (r^2 + 1/4),                     its slope 1 - tanh^2
    sigmoid'(z)    = 1/4 - r^2

A block is so small that it stays in the caches from one operator to the next; all operators write into memory that is
there already. Shapes: M examples, N neurons, L positions of each (1 in a plain network), c = coefficients (5, N).
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

BLOCK = 131072
"""Values of a block."""


def forward(z: Tensor, coefficients: Tensor) -> Tensor:
    """Return h[m, n, l] = sum_j c[j, n] b_j(z[m, n, l]), of z's shape and dtype.

    Args:
        z: (M, N, L), any floating dtype.
        coefficients: (5, N), float64 where z is, otherwise float32; the arithmetic has this dtype.
    """
    positive, negative, exponential, sigmoid, tanh = coefficients[:, :, None]
    constant = sigmoid / 2 - exponential
    h = torch.empty_like(z)
    for rows, (s, a) in _blocks(z, coefficients.dtype, 2):
        x = z[rows].to(coefficients.dtype)
        y = h[rows] if h.dtype == coefficients.dtype else torch.empty_like(s)
        torch.clamp_min(x, 0, out=a)
        torch.addcmul(constant, a, positive, out=y)
        torch.clamp_max(x, 0, out=a)
        y.addcmul_(a, negative)
        torch.sigmoid(x, out=s)
        _exp_of_negative(s, out=a)
        y.addcmul_(a, exponential)
        r = s.sub_(0.5)
        y.addcmul_(r, sigmoid)
        torch.mul(r, r, out=a).add_(0.25)
        y.addcmul_(r.div_(a), tanh)
        if y.dtype != h.dtype:
            h[rows] = y
    return h


def backward(g: Tensor, z: Tensor, coefficients: Tensor, sums: bool = True) -> tuple[Tensor, Tensor | None]:
    """Return the gradients of z and of the coefficients.

    At z = 0 the slopes are those of z < 0, as PyTorch has it for ReLU, Leaky ReLU, ELU and SELU.

    Args:
        g: the gradient of h, (M, N, L).
        z: (M, N, L).
        coefficients: (5, N), as in `forward`.
        sums: whether the coefficients' gradient is wanted.

    Returns:
        g dh/dz, of z's shape and dtype; and (5, N), the sums of g b_j(z) over M and L, or None.
    """
    positive, negative, exponential, sigmoid, tanh = coefficients[:, :, None]
    # dh/dz = negative + exponential e + sigmoid (1/4 - r^2) + tanh (1 - tanh^2), with e = 1 and `corner` more for z > 0
    corner = positive - negative - exponential
    constant = negative + sigmoid / 2 + tanh
    g_z = torch.empty_like(z)
    sum_g, sum_positive, sum_z, sum_e, sum_r, sum_tanh = coefficients.new_zeros(6, z.shape[1])
    for rows, (s, a, product, g_positive) in _blocks(z, coefficients.dtype, 4):
        x, g_h = z[rows].to(coefficients.dtype), g[rows].to(coefficients.dtype)
        slope = g_z[rows] if g_z.dtype == coefficients.dtype else torch.empty_like(s)

        def add(total: Tensor, left: Tensor, right: Tensor, product: Tensor = product) -> None:
            total += torch.mul(left, right, out=product).sum((0, 2))

        torch.ops.aten.threshold_backward.grad_input(g_h, x, 0, grad_input=g_positive)
        torch.sigmoid(x, out=s)
        _exp_of_negative(s, out=a)
        torch.addcmul(constant, a, exponential, out=slope)
        if sums:
            sum_g += g_h.sum((0, 2))
            add(sum_positive, g_positive, x)
            add(sum_z, g_h, x)
            add(sum_e, g_h, a)
        r = s.sub_(0.5)
        if sums:
            add(sum_r, g_h, r)
        torch.mul(r, r, out=a).add_(0.25)
        slope.addcmul_(a, sigmoid, value=-1)
        t = r.div_(a)
        if sums:
            add(sum_tanh, g_h, t)
        slope.addcmul_(t.mul_(t), tanh, value=-1)
        slope.mul_(g_h).addcmul_(g_positive, corner)
        if slope.dtype != g_z.dtype:
            g_z[rows] = slope
    if not sums:
        return g_z, None
    return g_z, torch.stack([sum_positive, sum_z - sum_positive, sum_e - sum_g, sum_r + sum_g / 2, sum_tanh])


def _exp_of_negative(sigmoid: Tensor, out: Tensor) -> None:
    """Write exp(min(z, 0)), given sigmoid(z)."""
    torch.neg(sigmoid, out=out).add_(1)
    torch.div(sigmoid, out, out=out).clamp_max_(1)


def _blocks(z: Tensor, dtype: torch.dtype, count: int) -> Iterator[tuple[slice, list[Tensor]]]:
    """Yield the examples of each block and `count` tensors of its shape for what is in between."""
    examples, *shape = z.shape
    length = max(1, min(examples, BLOCK // max(1, shape[0] * shape[1])))
    memory = torch.empty(count, length, *shape, dtype=dtype, device=z.device)
    for start in range(0, examples, length):
        stop = min(start + length, examples)
        yield slice(start, stop), list(memory[:, : stop - start].unbind())
