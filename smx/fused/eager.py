"""The basis (`smx.fused.basis`) in PyTorch's own operators, a block of examples at a time.

A neuron has one activation, which takes at most one exponential. So forward, one sigmoid does for all of them, which is
the cheapest of PyTorch's exponentials on a CPU: half the time of its exp, a sixth of its tanh. With another rate for
each neuron, s = sigmoid(max(rate z, floor)),

    exp(min(z, 0)) = 1 / s - 1   for rate -1 and floor 0,        tanh(z) = 2 s - 1   for rate 2.

In phase 1 all functions of the basis are wanted backward, and again one sigmoid gives them. With r = sigmoid(z) - 1/2:

    exp(min(z, 0)) = min(sigmoid / (1 - sigmoid), 1),        tanh(z) = r / (r^2 + 1/4)

A small layer's time is that of calling operators, a large one's that of moving its values. So there are few operators,
each writes where the next one reads, and a neuron's numbers come as they are needed: see `expand`.

The neurons stand on axis `dim` of z, one of two or more, in any layout in memory: a neuron's numbers are broadcast
along the others.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from smx.fused.constants import made_once

SCRATCH = 589824
"""Values of the intermediate tensors of a pass, altogether."""

FLOOR = -80.0
"""Below, a sigmoid is 0 in float32 and nothing beside 1 in float64, but 1 / s is still finite."""

Numbers = tuple[Tensor, ...]
"""A neuron's numbers, as `expand` has them: twelve of (N,), with an axis of 1 for each axis of z behind `dim`."""

_threshold_backward = torch.ops.aten.threshold_backward.grad_input


def expand(coefficients: Tensor, *, fixed: bool) -> Tensor:
    """Return what the passes multiply with, for coefficients (5, K), of whose last three at most one is not 0.

    Args:
        coefficients: of each activation, see `smx.fused.basis`.
        fixed: whether the choice is fixed: then it is for `backward_from_result`, otherwise for `backward`.

    Returns:
        (12, K): seven rows for forward, h = constant + inverse / s + share s + slope z + rise max(z, 0), and five for
        backward.
    """
    positive, negative, exponential, sigmoid, tanh = coefficients
    inner = (sigmoid != 0) | (tanh != 0)
    rate = torch.where(inner, (sigmoid != 0) + 2.0 * (tanh != 0), -1.0)
    floor = torch.where(inner, FLOOR, 0.0)
    corner = positive - negative - exponential
    rows = [rate, floor, -2 * exponential - tanh, exponential, sigmoid + 2 * tanh, negative, positive - negative]
    if fixed:
        cap = torch.where(inner, torch.inf, 0.0)
        linear = (exponential != 0) + 1.0 * (sigmoid != 0)
        rows += [cap, linear, -1.0 * inner, negative + exponential + tanh, corner]
    else:
        rows += [exponential, sigmoid, tanh, negative + sigmoid / 2 + tanh, corner]
    return torch.stack(rows)


def of_sums(coefficients: Tensor) -> Tensor:
    """Return (6, K): what the sums of `backward` are multiplied with to give the sums of g f_k(z)."""
    positive, negative, exponential, sigmoid, tanh = coefficients
    return torch.stack([sigmoid / 2 - exponential, negative, positive - negative, exponential, sigmoid, tanh])


def numbers(columns: Tensor, choice: Tensor, behind: int = 0) -> Tensor:
    """Return for each neuron the column of what it chose, (12, N) and the axes of 1; `prepared` takes it apart.

    Args:
        columns: (12, K), see `expand`.
        choice: int64 (N,).
        behind: the axes of z behind `dim`.
    """
    chosen = columns.index_select(1, choice)
    return chosen.view(*chosen.shape, *[1] * behind) if behind else chosen


def prepared(numbers: Tensor) -> Numbers:
    """Return what the passes take of `numbers`."""
    return numbers.unbind()


def forward(z: Tensor, numbers: Numbers, dim: int = 1) -> Tensor:
    """Return h = sum_j c[j] b_j(z), of z's shape and dtype, and in memory as z is.

    Args:
        z: (B, N, *), or N on another axis `dim`; any floating dtype.
        numbers: float64 where z is, otherwise float32. The arithmetic has this dtype.
        dim: the axis of the neurons.
    """
    h = torch.empty_like(z)
    _in_blocks(_forward, 1, (z, h), numbers, dim)
    return h


def _forward(z: Tensor, h: Tensor, numbers: Numbers, dim: int) -> None:
    rate, floor, constant, inverse, share, slope, rise = numbers[:7]
    a = torch.mul(z, rate)
    torch.maximum(a, floor, out=a)
    torch.sigmoid(a, out=a)
    torch.addcdiv(constant, inverse, a, out=h)
    h.addcmul_(a, share)
    h.addcmul_(z, slope)
    # What is there for z > 0 alone comes last: h is exact where the others have nothing, and has the sign of z.
    torch.clamp_min(z, 0, out=a)
    h.addcmul_(a, rise)


def backward(g: Tensor, z: Tensor, numbers: Numbers, dim: int = 1) -> tuple[Tensor, Tensor]:
    """Return the gradient of z, and the sums that the gradients of the coefficients consist of.

    At z = 0 the slopes are those of z < 0, as PyTorch has it for ReLU, Leaky ReLU, ELU and SELU.

        dh/dz = level + exponential e - sigmoid (r^2 + 1/4) - tanh t^2, and the corner more for z > 0,
        with e = exp(min(z, 0)) and t = tanh(z)

    Args:
        g: the gradient of h, of its shape and dtype.
        z, dim: as in `forward`.
        numbers: as in `forward`, not for a fixed choice.

    Returns:
        g dh/dz, of z's shape and dtype, and (6, N): the sums over all other axes of g (1, z, max(z, 0), e, r, t).
    """
    g_z, sums = torch.empty_like(z), list[Tensor]()
    _in_blocks(_backward, 3, (g, z, g_z), numbers, dim, sums)
    return g_z, sums[0] if sums else numbers[0].new_zeros(6, len(numbers[0]))


def _backward(g: Tensor, z: Tensor, g_z: Tensor, numbers: Numbers, dim: int, sums: list[Tensor]) -> None:
    exponential, sigmoid, tanh, level, corner = numbers[7:]
    one, half, quarter = _constants(level.dtype, level.device).unbind()
    others = list(range(z.dim()))
    del others[dim]
    block = level.new_empty(6, len(level))
    of_g, of_z, of_positive, of_e, *_ = block.unbind()
    memory = z.new_empty((3, *z.shape))
    a, r, t = memory.unbind()
    torch.sigmoid(z, out=r)
    torch.sub(one, r, out=t)
    e = torch.div(r, t, out=a)
    e.clamp_max_(1)
    torch.addcmul(level, e, exponential, out=g_z)
    torch.sum(e.mul_(g), others, out=of_e)
    r.sub_(half)
    torch.addcmul(quarter, r, r, out=a)
    g_z.addcmul_(a, sigmoid, value=-1)
    torch.div(r, a, out=t)
    torch.mul(t, t, out=a)
    g_z.addcmul_(a, tanh, value=-1)
    g_z.mul_(g)
    _threshold_backward(g, z, 0, grad_input=a)
    g_z.addcmul_(a, corner)
    torch.sum(a.mul_(z), others, out=of_positive)
    torch.sum(torch.mul(g, z, out=a), others, out=of_z)
    torch.sum(g, others, out=of_g)
    torch.sum(memory[1:].mul_(g), [axis + 1 for axis in others], out=block[4:])
    if sums:
        sums[0].add_(block)
    else:
        sums.append(block)


def backward_from_result(g: Tensor, h: Tensor, numbers: Numbers, dim: int = 1) -> Tensor:
    """Return the gradient of z where the choice is fixed, given the result h in place of z.

        dh/dz = base + linear m + square m^2 with m = min(h, cap), and the corner more for h > 0

    Args:
        g: the gradient of h, of its shape and dtype.
        h: what `forward` returned.
        numbers: as in `forward`, for a fixed choice.
        dim: the axis of the neurons.
    """
    g_z = torch.empty_like(h)
    _in_blocks(_backward_from_result, 1, (g, h, g_z), numbers, dim)
    return g_z


def backward_from_input(g: Tensor, z: Tensor, numbers: Numbers, dim: int = 1) -> Tensor:
    """Do what `backward_from_result` does, where z was kept: the result is computed again."""
    g_z = torch.empty_like(z)
    _in_blocks(_backward_from_input, 2, (g, z, g_z), numbers, dim)
    return g_z


def _backward_from_input(g: Tensor, z: Tensor, g_z: Tensor, numbers: Numbers, dim: int) -> None:
    h = torch.empty_like(z)
    _forward(z, h, numbers, dim)
    _backward_from_result(g, h, g_z, numbers, dim)


def _backward_from_result(g: Tensor, h: Tensor, g_z: Tensor, numbers: Numbers, dim: int) -> None:
    cap, linear, square, base, corner = numbers[7:]
    m = torch.minimum(h, cap)
    torch.addcmul(linear, m, square, out=g_z)
    torch.addcmul(base, m, g_z, out=g_z)
    g_z.mul_(g)
    _threshold_backward(g, h, 0, grad_input=m)
    g_z.addcmul_(m, corner)


def _in_blocks(
    work: Callable[..., None],
    scratch: int,
    tensors: tuple[Tensor, ...],
    numbers: Numbers,
    dim: int,
    *rest: list[Tensor],
) -> None:
    """Do the work block by block, in the numbers' dtype.

    Blocks are of one length, so that PyTorch divides all of them among its threads alike; they have all neurons.

    Args:
        work: takes a block of each of the tensors, and what follows them here.
        scratch: how many intermediate tensors the work takes, each of the size of a block.
        tensors: of one shape; the last one is where the work writes.
        numbers, dim, rest: see `work`.
    """
    output, dtype = tensors[-1], numbers[0].dtype
    size = output.numel()
    if not size:
        return
    if scratch * size <= SCRATCH and output.dtype == dtype:
        work(*tensors, numbers, dim, *rest)
        return
    if output.dtype != dtype:
        scratch += len(tensors)  # all of them are copied into `dtype`
    # Along the longest axis but the neurons'.
    axis = max((axis for axis in range(output.dim()) if axis != dim % output.dim()), key=output.shape.__getitem__)
    length = -(-output.shape[axis] // -(-scratch * size // SCRATCH))
    for *parts, out in zip(*(torch.split(tensor, length, axis) for tensor in tensors), strict=True):
        if out.dtype == dtype:
            work(*parts, out, numbers, dim, *rest)
        else:
            wide = torch.empty_like(out, dtype=dtype)
            work(*(part.to(dtype) for part in parts), wide, numbers, dim, *rest)
            out.copy_(wide)


@made_once
def _constants(dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return 1, 1/2 and 1/4 as tensors, which PyTorch need not make of numbers at each call."""
    return torch.tensor([1.0, 0.5, 0.25], dtype=dtype, device=device)
