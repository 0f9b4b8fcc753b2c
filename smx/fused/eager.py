"""The basis (`smx.fused.basis`) in PyTorch's own operators, a block of examples at a time.

Everything comes of one sigmoid, which is the cheapest of PyTorch's exponentials on a CPU: half the time of its exp, a
sixth of its tanh. With r = sigmoid(z) - 1/2 and e = exp(min(z, 0)):

    e       = min(sigmoid / (1 - sigmoid), 1)
    tanh(z) = r / (r^2 + 1/4),                  its slope 1 - tanh^2
    slope of the sigmoid = 1/4 - r^2

A small layer's time is that of calling operators, a large one's that of moving its values. So there are few operators,
each writes where the next one reads, and a neuron's numbers come as they are needed: a column of `expand`.

Shapes: M examples, N neurons, L positions of each (1 in a plain network).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache

import torch
from torch import Tensor

BLOCK = 131072
"""Values of a block."""

SUMS = 6
"""The first rows of `expand` are coefficients of (1, z, max(z, 0), e, r, tanh(z)); `backward` sums with these."""


def expand(coefficients: Tensor) -> Tensor:
    """Return what `forward` and `backward` take of coefficients (5, K): (8, K), the `SUMS` rows and two for slopes.

    dh/dz = row 6 + c[3] e - c[4] (r^2 + 1/4) - c[5] tanh^2, and row 7 more for z > 0, where e is 1 and has no slope.
    """
    positive, negative, exponential, sigmoid, tanh = coefficients
    rise = positive - negative
    rows = (sigmoid / 2 - exponential, negative, rise, exponential, sigmoid, tanh)
    return torch.stack([*rows, negative + sigmoid / 2 + tanh, rise - exponential])


def forward(z: Tensor, numbers: Tensor, h: Tensor) -> None:
    """Write h[m, n, l] = sum_j c[j, n] b_j(z[m, n, l]).

    Args:
        z: (M, N, L), any floating dtype.
        numbers: (8, N), see `expand`; float64 where z is, otherwise float32. The arithmetic has this dtype.
        h: of z's shape and dtype, is written.
    """
    constant, slope, rise, exponential, sigmoid, tanh, *_ = numbers[:, :, None].unbind()
    for (x,), y, (s, a) in _blocks([z], h, numbers.dtype, 2):
        torch.addcmul(constant, x, slope, out=y)
        torch.clamp_min(x, 0, out=a)
        y.addcmul_(a, rise)
        torch.sigmoid(x, out=s)
        torch.sub(_scalar(1.0, a), s, out=a)
        torch.div(s, a, out=a).clamp_max_(1)
        y.addcmul_(a, exponential)
        r = s.sub_(_scalar(0.5, s))
        y.addcmul_(r, sigmoid)
        torch.addcmul(_scalar(0.25, r), r, r, out=a)
        y.addcmul_(r.div_(a), tanh)


def backward(g: Tensor, z: Tensor, numbers: Tensor, g_z: Tensor, sums: bool = True) -> Tensor | None:
    """Write the gradient of z; return, if wanted, the sums that the gradient of the numbers consists of.

    At z = 0 the slopes are those of z < 0, as PyTorch has it for ReLU, Leaky ReLU, ELU and SELU.

    Args:
        g: the gradient of h, (M, N, L).
        z: (M, N, L).
        numbers: (8, N), as in `forward`.
        g_z: of z's shape and dtype, is written: g dh/dz.
        sums: whether they are wanted.

    Returns:
        (SUMS, N), the sums over M and L of g (1, z, max(z, 0), e, r, tanh(z)).
    """
    *_, exponential, sigmoid, tanh, level, corner = numbers[:, :, None].unbind()
    totals: Tensor | None = None
    for (x, g_h), slope, memory in _blocks([z, g], g_z, numbers.dtype, 4 if sums else 3):
        a, e, r, t = memory if sums else (*memory, memory[2])
        torch.sigmoid(x, out=r)
        torch.sub(_scalar(1.0, r), r, out=a)
        torch.div(r, a, out=e).clamp_max_(1)
        torch.addcmul(level, e, exponential, out=slope)
        r.sub_(_scalar(0.5, r))
        torch.addcmul(_scalar(0.25, r), r, r, out=a)
        slope.addcmul_(a, sigmoid, value=-1)
        torch.div(r, a, out=t)
        torch.mul(t, t, out=a)
        slope.addcmul_(a, tanh, value=-1).mul_(g_h)
        torch.ops.aten.threshold_backward.grad_input(g_h, x, 0, grad_input=a)
        slope.addcmul_(a, corner)
        if sums:
            block = numbers.new_empty(SUMS, z.shape[1])
            torch.sum(g_h, (0, 2), out=block[0])
            torch.sum(a.mul_(x), (0, 2), out=block[2])
            torch.sum(torch.mul(g_h, x, out=a), (0, 2), out=block[1])
            torch.sum(memory[1:].mul_(g_h), (1, 3), out=block[3:])
            totals = block if totals is None else totals.add_(block)
    return numbers.new_zeros(SUMS, z.shape[1]) if sums and totals is None else totals


def _blocks(
    inputs: Sequence[Tensor], output: Tensor, dtype: torch.dtype, count: int
) -> Iterator[tuple[Sequence[Tensor], Tensor, Tensor]]:
    """Yield, block by block, the inputs, where the output goes, and memory for `count` tensors, all in `dtype`.

    Blocks are of one length, so that PyTorch divides all of them among its threads alike.
    """
    blocks = -(-output.numel() // BLOCK)
    if blocks <= 1 and output.dtype == dtype:
        yield inputs, output, output.new_empty((count, *output.shape))
        return
    length = -(-len(output) // max(1, blocks))
    memory = output.new_empty((count, length, *output.shape[1:]), dtype=dtype)
    for *parts, out in zip(*(torch.split(tensor, max(1, length)) for tensor in (*inputs, output)), strict=True):
        if out.dtype == dtype:
            yield parts, out, memory[:, : len(out)]
        else:
            wide = torch.empty_like(out, dtype=dtype)
            yield [part.to(dtype) for part in parts], wide, memory[:, : len(out)]
            out.copy_(wide)


def _scalar(value: float, like: Tensor) -> Tensor:
    return _constant(value, like.dtype, like.device)


@cache
def _constant(value: float, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return a tensor without axes, which PyTorch need not make of a number at each call."""
    return torch.tensor(value, dtype=dtype, device=device)
