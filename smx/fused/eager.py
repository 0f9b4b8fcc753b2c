"""The backend in PyTorch's own operators, one block of examples at a time; README.md here explains its formulas.

The functions are those of `smx.fused.operators.Backend`. Shapes stand in suffixes where they are not those of z:

    N neurons    K activations of the pool    C = 12 numbers a neuron, see `_expand`    J = 6 sums a neuron

A neuron's numbers are broadcast along the other axes of z: `Numbers` are 12 tensors (N, 1, ...), with an axis of size 1
for each axis of z after `dim`. z has at least two axes.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor

from smx.fused.basis import Table, arithmetic_dtype, coefficients, made_once
from smx.fused.decisions import only

SCRATCH = 589824
"""Elements of all intermediate tensors of a pass together, at most; larger inputs are divided into blocks."""

NO_FACTORS = (0, 1, 2, 10, 11)
"""Among the numbers of `_expand`: rate, floor, constant; and level and corner, which stay for simplicity."""

FLOOR = -80.0
"""Below it a sigmoid is 0 in float32 and negligible beside 1 in float64, but its inverse is still finite."""

Numbers = tuple[Tensor, ...]
"""Where a layer has one activation, an empty tensor stands for a factor of 0, whose term is left out."""

_threshold_backward = torch.ops.aten.threshold_backward.grad_input


def numbers(table: Table, choice_N: Tensor, z: Tensor, dim: int, fixed: bool) -> tuple[Tensor, Numbers]:
    """Look up the numbers of each neuron's activation: (C, N, 1, ...), and its C parts."""
    numbers_CN = _columns(table, fixed, arithmetic_dtype(z), z.device).index_select(1, choice_N)
    after = -1 - dim if dim < 0 else z.dim() - 1 - dim
    if after:
        numbers_CN = numbers_CN.view(*numbers_CN.shape, *[1] * after)
    parts, same = numbers_CN.unbind(), only(choice_N)
    if same is None or fixed:
        return numbers_CN, parts
    return numbers_CN, tuple(part if kept else part[:0] for part, kept in zip(parts, _kept(table, same), strict=True))


@cache
def _kept(table: Table, same: int) -> tuple[bool, ...]:
    """Say which numbers of an activation `_forward` and `_backward` need: all but factors of 0."""
    row = _expand(coefficients(table, torch.float64, "cpu"), False)[:, same].tolist()
    return tuple(bool(value) or i in NO_FACTORS for i, value in enumerate(row))


def rescaled(saved: Tensor, numbers: Numbers, affine_2N: Tensor) -> tuple[Tensor, Numbers]:
    """Return the numbers of scale f(z) + shift: all but rate and floor are factors of the result or of the slope."""
    (scale, shift), constant = affine_2N.view(2, *saved.shape[1:]), numbers[2]
    saved[2:].mul_(scale)
    constant.add_(shift)
    return saved, numbers  # which are views of `saved`


@made_once
def _columns(table: Table, fixed: bool, dtype: torch.dtype, device: torch.device) -> Tensor:
    return _expand(coefficients(table, torch.float64, "cpu"), fixed).to(device, dtype)


def _expand(c_5K: Tensor, fixed: bool) -> Tensor:
    """Return the numbers of each activation, (C, K): 7 for `_forward`, then 5 for `_fixed_from_result` or `_backward`.

    Of an activation's coefficients of expm1, sigmoid and tanh at most one is not 0, so that one sigmoid,
    s = sigmoid(max(rate z, floor)), serves the forward pass:

        h = constant + inverse / s + share s + slope z + rise max(z, 0)
    """
    positive, negative, exponential, sigmoid, tanh = c_5K
    bounded = (sigmoid != 0) | (tanh != 0)
    rate = torch.where(bounded, (sigmoid != 0) + 2.0 * (tanh != 0), -1.0)
    floor = torch.where(bounded, FLOOR, 0.0)
    corner = positive - negative - exponential
    rows = [rate, floor, -2 * exponential - tanh, exponential, sigmoid + 2 * tanh, negative, positive - negative]
    if fixed:
        cap = torch.where(bounded, torch.inf, 0.0)
        linear = (exponential != 0) + 1.0 * (sigmoid != 0)
        rows += [cap, linear, -1.0 * bounded, negative + exponential + tanh, corner]
    else:
        rows += [exponential, sigmoid, tanh, negative + sigmoid / 2 + tanh, corner]
    return torch.stack(rows)


def forward(z: Tensor, numbers: Numbers, dim: int) -> Tensor:
    """Return h. The arithmetic has the dtype of the numbers."""
    h = torch.empty_like(z)
    _in_blocks(_forward, 1, (z, h), numbers, dim)
    return h


def _forward(z: Tensor, h: Tensor, numbers: Numbers, dim: int) -> None:
    rate, floor, constant, inverse, share, slope, rise = numbers[:7]
    s, so_far = torch.empty_like(h), constant
    if len(inverse) or len(share):
        torch.mul(z, rate, out=s)
        torch.maximum(s, floor, out=s)
        torch.sigmoid(s, out=s)
    if len(inverse):
        so_far = torch.addcdiv(so_far, inverse, s, out=h)
    if len(share):
        so_far = torch.addcmul(so_far, s, share, out=h)
    if len(slope):
        so_far = torch.addcmul(so_far, z, slope, out=h)
    # The term that is 0 for z <= 0 comes last: then h is exact where the other terms are 0, and has the sign of z.
    if len(rise):
        torch.addcmul(so_far, torch.clamp_min(z, 0, out=s), rise, out=h)


def backward(g: Tensor, z: Tensor, numbers: Numbers, dim: int) -> tuple[Tensor, Tensor]:
    """Return g_z, and for each neuron the sums of g (1, z, max(z, 0), e, r, t), (J, N).

    With r = sigmoid(z) - 1/2, e = exp(min(z, 0)) = min(sigmoid(z) / (1 - sigmoid(z)), 1) and
    t = tanh(z) = r / (r^2 + 1/4):

        dh/dz = level + exponential e - sigmoid (r^2 + 1/4) - tanh t^2 + (corner if z > 0)
    """
    g_z, sums = torch.empty_like(z), list[Tensor]()
    _in_blocks(_backward, 3, (g, z, g_z), numbers, dim, sums)
    return g_z, sums[0] if sums else numbers[0].new_zeros(6, len(numbers[0]))


def _backward(g: Tensor, z: Tensor, g_z: Tensor, numbers: Numbers, dim: int, sums: list[Tensor]) -> None:
    """Write g_z of a block, and add its sums to `sums`. g_z holds the slope until it is multiplied with g."""
    exponential, sigmoid, tanh, level, corner = numbers[7:]
    one, half, quarter = _fractions(level.dtype, level.device).unbind()
    others = list(range(z.dim()))
    del others[dim]
    sums_JN = level.new_empty(6, len(level))
    sum_g, sum_z, sum_positive, sum_e, *_ = sums_JN.unbind()
    memory = z.new_empty((3, *z.shape))
    a, r, t = memory.unbind()
    # e, its part of the slope, and its sum
    torch.sigmoid(z, out=r)
    torch.sub(one, r, out=t)
    e = torch.div(r, t, out=a)
    e.clamp_max_(1)
    if len(exponential):
        torch.addcmul(level, e, exponential, out=g_z)
    else:
        g_z.copy_(level)
    torch.sum(e.mul_(g), others, out=sum_e)
    # r and t, and their parts of the slope
    r.sub_(half)
    torch.addcmul(quarter, r, r, out=a)
    if len(sigmoid):
        g_z.addcmul_(a, sigmoid, value=-1)
    torch.div(r, a, out=t)
    if len(tanh):
        g_z.addcmul_(torch.mul(t, t, out=a), tanh, value=-1)
    # The slope is complete but for the corner; here it becomes the gradient.
    g_z.mul_(g)
    g_positive = _threshold_backward(g, z, 0, grad_input=a)
    g_z.addcmul_(g_positive, corner)
    # The other sums
    torch.sum(g_positive.mul_(z), others, out=sum_positive)
    torch.sum(torch.mul(g, z, out=a), others, out=sum_z)
    torch.sum(g, others, out=sum_g)
    torch.sum(memory[1:].mul_(g), [axis + 1 for axis in others], out=sums_JN[4:])  # of r and t
    if sums:
        sums[0].add_(sums_JN)
    else:
        sums.append(sums_JN)


def sum_of_gradient(g: Tensor, sums_JN: Tensor, dim: int) -> Tensor:
    """Return the sum of g, (N,)."""
    return sums_JN[0]


def sums_of_pool(sums_JN: Tensor, table: Table) -> Tensor:
    """Return the sums of g f_k(z), (K, N)."""
    return product(_weights(table, sums_JN.dtype, sums_JN.device), sums_JN)


@made_once
def _weights(table: Table, dtype: torch.dtype, device: torch.device) -> Tensor:
    positive, negative, exponential, sigmoid, tanh = coefficients(table, torch.float64, "cpu")
    rows = [sigmoid / 2 - exponential, negative, positive - negative, exponential, sigmoid, tanh]
    return torch.stack(rows, 1).to(device, product_dtype(dtype, device))


def product_dtype(dtype: torch.dtype, device: torch.device) -> torch.dtype:
    """Return the dtype of the weights of `product`: float64 on a GPU, so that TF32 does not round the product."""
    return torch.float64 if device.type == "cuda" else dtype


def product(weights_KJ: Tensor, sums_JN: Tensor) -> Tensor:
    """Return weights @ sums, (K, N), in the dtype of the sums. Autocast does not round it, because it has `out`."""
    out_KN = weights_KJ.new_empty(len(weights_KJ), sums_JN.shape[1])
    return torch.mm(weights_KJ, sums_JN.to(weights_KJ.dtype), out=out_KN).to(sums_JN.dtype)


def backward_fixed(g: Tensor, kept: Tensor, numbers: Numbers, dim: int, keeps_result: bool) -> Tensor:
    """Return g_z. With m = min(h, cap):

    dh/dz = base + linear m + square m^2 + (corner if h > 0)
    """
    g_z = torch.empty_like(kept)
    work, scratch = (_fixed_from_result, 1) if keeps_result else (_fixed_from_input, 2)
    _in_blocks(work, scratch, (g, kept, g_z), numbers, dim)
    return g_z


def _fixed_from_input(g: Tensor, z: Tensor, g_z: Tensor, numbers: Numbers, dim: int) -> None:
    h = torch.empty_like(z)
    _forward(z, h, numbers, dim)
    _fixed_from_result(g, h, g_z, numbers, dim)


def _fixed_from_result(g: Tensor, h: Tensor, g_z: Tensor, numbers: Numbers, dim: int) -> None:
    cap, linear, square, base, corner = numbers[7:]
    m = torch.minimum(h, cap)
    torch.addcmul(linear, m, square, out=g_z)
    torch.addcmul(base, m, g_z, out=g_z)
    g_z.mul_(g)
    g_positive = _threshold_backward(g, h, 0, grad_input=m)
    g_z.addcmul_(g_positive, corner)


def _in_blocks(
    work: Callable[..., None], scratch: int, tensors: tuple[Tensor, ...], numbers: Numbers, dim: int, *rest: Any
) -> None:
    """Call `work` for each block of the tensors, in the dtype of the numbers; it writes into the last tensor's block.

    `scratch` says how many intermediate tensors of the size of a block the work needs. A block has all neurons. All
    blocks but the last one have one length, so that PyTorch divides them among its threads in the same way.
    """
    output, dtype = tensors[-1], numbers[0].dtype
    size = output.numel()
    if not size:
        return
    if scratch * size <= SCRATCH and output.dtype == dtype:
        work(*tensors, numbers, dim, *rest)
        return
    if output.dtype != dtype:
        scratch += len(tensors)  # each of them is copied into `dtype`
    # Divide the longest axis that is not the neurons'.
    axis = max((axis for axis in range(output.dim()) if axis != dim % output.dim()), key=output.shape.__getitem__)
    length = -(-output.shape[axis] // -(-scratch * size // SCRATCH))
    for *inputs, out in zip(*(torch.split(tensor, length, axis) for tensor in tensors), strict=True):
        if out.dtype == dtype:
            work(*inputs, out, numbers, dim, *rest)
        else:
            wide = torch.empty_like(out, dtype=dtype)
            work(*(part.to(dtype) for part in inputs), wide, numbers, dim, *rest)
            out.copy_(wide)


@made_once
def _fractions(dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return 1, 1/2 and 1/4 as tensors: PyTorch would make a tensor of a number at each call."""
    return torch.tensor([1.0, 0.5, 0.25], dtype=dtype, device=device)
