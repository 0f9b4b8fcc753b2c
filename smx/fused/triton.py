"""The backend on a GPU: one Triton kernel forward, two backward; see README.md here.

The functions are those of `smx.fused.operators.Backend`. The numbers of a neuron are its 5 coefficients c: c_5N, or
c_6N with a constant after them, which the kernels don't know. In the kernels z has shape (M, N, L): M examples, N
neurons, L positions of each neuron (1 in a plain network, height times width in a convolution). A program works on
tiles (BLOCK_M, BLOCK_N, BLOCK_L) of z. Memory is read in long runs if a tile extends along the axis whose elements are
adjacent: N where L is 1, L where it is large. So `_plan` serves both layouts, and the kernels need no division to find
an element.
"""
# mypy: disallow-untyped-decorators=False, disallow-untyped-defs=False, disallow-incomplete-defs=False
# mypy: disallow-untyped-calls=False

from __future__ import annotations

import math
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from smx.fused.basis import Table, arithmetic_dtype, coefficients, made_once
from smx.fused.eager import product, product_dtype

TILE = 1024  # elements of z: four a thread, so that the backward pass keeps five running sums for each in registers
RUN = 64  # adjacent elements that make reading efficient: 128 bytes of bfloat16, 256 of float32
PROGRAMS = 1024  # of the backward pass, at most: they fill a GPU, and their partial sums are small beside z
SERIES32, SERIES64 = (tuple(1 / math.factorial(k) for k in range(terms, 0, -1)) for terms in (6, 12))
"""Taylor coefficients of expm1, the highest power first: on [-1/4, 0] exact to the last bits of either type."""


def numbers(table: Table, choice_N: Tensor, z: Tensor, dim: int, fixed: bool) -> tuple[Tensor, Tensor]:
    """Return the coefficients of each neuron's activation, (5, N), contiguous."""
    c_5N = _columns(table, arithmetic_dtype(z), z.device).index_select(1, choice_N)
    return c_5N, c_5N


_columns = made_once(coefficients)


def rescaled(c_5N: Tensor, numbers: Tensor, affine_2N: Tensor) -> tuple[Tensor, Tensor]:
    """Return the numbers of scale f(z) + shift, (6, N): a constant after the coefficients."""
    c_6N = torch.cat([c_5N * affine_2N[:1], affine_2N[1:]]).to(c_5N.dtype)
    return c_6N, c_6N


def sum_of_gradient(g: Tensor, sums_5N: Tensor, dim: int) -> Tensor:
    """Return the sum of g, (N,)."""
    return g.sum([axis for axis in range(g.dim()) if axis != dim % g.dim()], dtype=sums_5N.dtype)


def forward(z: Tensor, c: Tensor, dim: int) -> Tensor:
    """Return h. The arithmetic has the dtype of c."""
    if len(c) > 5:  # a constant, which is too rare for another number in the kernels
        constant = c[5].view(-1, *[1] * (z.dim() - 1 - dim % z.dim()))
        return forward(z.to(c.dtype), c[:5], dim).add_(constant).to(z.dtype)
    z, c_5N = _dense(z, dim), c
    h = torch.empty_like(z)
    flat = _flat(z, dim)
    constants, tiles, neuron_blocks = _plan(flat)
    with torch.cuda.device_of(z):  # Triton launches on the current device
        _forward[(tiles * neuron_blocks,)](flat, c_5N.contiguous(), _flat(h, dim), *flat.shape, **constants)
    return h


def backward(g: Tensor, z: Tensor, c: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """Return g_z, and the sums of g b_j(z), (5, N)."""
    z, c_5N = _dense(z, dim), c[:5]
    g, g_z, flat = _as(z, g), torch.empty_like(z), _flat(z, dim)
    constants, tiles, neuron_blocks = _plan(flat)
    # Each program writes the partial sums of its share of the tiles; PyTorch adds the shares up.
    shares = min(tiles, max(1, PROGRAMS // neuron_blocks))
    partial = c_5N.new_empty((shares, *c_5N.shape))
    with torch.cuda.device_of(z):
        _backward[(shares * neuron_blocks,)](
            _flat(g, dim), flat, c_5N.contiguous(), _flat(g_z, dim), partial, *flat.shape, shares, **constants
        )
    return g_z, partial.sum(0)


def sums_of_pool(sums_5N: Tensor, table: Table) -> Tensor:
    """Return the sums of g f_k(z), (K, N)."""
    return product(_weights(table, sums_5N.dtype, sums_5N.device), sums_5N)


@made_once
def _weights(table: Table, dtype: torch.dtype, device: torch.device) -> Tensor:
    return coefficients(table, product_dtype(dtype, device), device).t()


def backward_fixed(g: Tensor, kept: Tensor, c_5N: Tensor, dim: int, keeps_result: bool) -> Tensor:
    """Return g_z."""
    if not keeps_result:
        h = forward(kept.to(c_5N.dtype), c_5N, dim)
        return backward_fixed(g.to(h.dtype), h, c_5N, dim, True).to(kept.dtype)
    g, g_z, flat = _as(kept, g), torch.empty_like(kept), _flat(kept, dim)
    constants, tiles, neuron_blocks = _plan(flat)
    del constants["SERIES"]
    with torch.cuda.device_of(kept):
        _backward_from_result[(tiles * neuron_blocks,)](
            _flat(g, dim), flat, c_5N.contiguous(), _flat(g_z, dim), *flat.shape, **constants
        )
    return g_z


def _dense(z: Tensor, dim: int) -> Tensor:
    """Return z without gaps in memory, contiguous or, as channels-last tensors are, with the neurons' axis last."""
    return z if z.is_contiguous() or z.movedim(dim, -1).is_contiguous() else z.contiguous()


def _as(z: Tensor, g: Tensor) -> Tensor:
    """Return g in the layout of z."""
    return g if g.stride() == z.stride() else torch.empty_like(z).copy_(g)


def _flat(z: Tensor, dim: int) -> Tensor:
    """Return a dense tensor as (M, N, L), without a copy."""
    dim %= z.dim()
    if not z.is_contiguous():
        return z.movedim(dim, -1).view(-1, z.shape[dim], 1)
    return z.view(math.prod(z.shape[:dim]), z.shape[dim], math.prod(z.shape[dim + 1 :]))


def _plan(z: Tensor) -> tuple[dict[str, Any], int, int]:
    """Return the constants that the kernels are compiled for, the tiles of each neuron, and the blocks of neurons.

    A tile extends along L, then along N until it has `RUN` adjacent elements, and with the rest along M.
    """
    M, N, L = z.shape
    block_l = min(triton.next_power_of_2(max(L, 1)), TILE)
    block_n = min(triton.next_power_of_2(N), max(1, RUN // block_l))
    block_m = TILE // (block_n * block_l)
    constants = {
        "SERIES": SERIES64 if z.dtype == torch.float64 else SERIES32,
        "BLOCK": (block_m, block_n, block_l),
        "num_warps": 8,
        "enable_fp_fusion": True,  # Triton's default up to 3.9, which warns that 3.10 will have another
    }
    return constants, triton.cdiv(M, block_m) * triton.cdiv(L, block_l), triton.cdiv(N, block_n)


@triton.jit
def _basis(z, SERIES: tl.constexpr):
    """Return the five functions of the basis at z, all of them from one exponential that can't overflow.

    With e = exp(-|z|) and m = expm1(-|z|): sigmoid(|z|) = 1 / (1 + e), sigmoid(-|z|) = e / (1 + e),
    expm1(-2|z|) = m (m + 2), and tanh(|z|) = -m (m + 2) / (2 + m (m + 2)).
    """
    a = -tl.abs(z)
    e = tl.exp(a)
    # e - 1 loses its digits near 0. There the series a + a^2/2! + a^3/3! ... keeps them, and so do ELU and tanh
    # of small z, which are multiples of m.
    series = tl.zeros(z.shape, z.dtype)
    for i in tl.static_range(len(SERIES)):
        series = series * a + SERIES[i]
    m = tl.where(a > -0.25, a * series, e - 1.0)
    twice = m * (m + 2.0)
    positive = z > 0.0
    return (
        tl.where(positive, z, 0.0),
        tl.where(positive, 0.0, z),
        tl.where(positive, 0.0, m),
        tl.where(positive, 1.0, e) / (1.0 + e),
        tl.where(positive, -twice, twice) / (2.0 + twice),
    )


@triton.jit
def _tile(tile, n, M, N, L, BLOCK: tl.constexpr):
    """Return the offsets of a tile's elements, of shape BLOCK, and which of them exist.

    `tile` is int64, and makes everything derived from it so: a tensor may have more than 2**31 elements.
    """
    blocks_l = tl.cdiv(L, BLOCK[2])
    examples = (tile // blocks_l * BLOCK[0] + tl.arange(0, BLOCK[0]))[:, None, None]
    neurons = n[None, :, None]
    positions = (tile % blocks_l * BLOCK[2] + tl.arange(0, BLOCK[2]))[None, None, :]
    return (examples * N + neurons) * L + positions, (examples < M) & (neurons < N) & (positions < L)


@triton.jit
def _coefficients(pointer, n, N):
    """Load the five coefficients of the neurons n, each (1, N, 1)."""
    neurons = n[None, :, None]
    exists = neurons < N
    return (
        tl.load(pointer + neurons, exists, 0.0),
        tl.load(pointer + N + neurons, exists, 0.0),
        tl.load(pointer + 2 * N + neurons, exists, 0.0),
        tl.load(pointer + 3 * N + neurons, exists, 0.0),
        tl.load(pointer + 4 * N + neurons, exists, 0.0),
    )


@triton.jit(do_not_specialize=["M"])
def _forward(z_pointer, coefficients, h_pointer, M, N, L, SERIES: tl.constexpr, BLOCK: tl.constexpr):
    """One program a tile. Neighbouring programs have neighbouring neurons, so that they read neighbouring memory."""
    program = tl.program_id(0).to(tl.int64)
    neuron_blocks = tl.cdiv(N, BLOCK[1])
    n = program % neuron_blocks * BLOCK[1] + tl.arange(0, BLOCK[1])
    c0, c1, c2, c3, c4 = _coefficients(coefficients, n, N)
    offsets, exists = _tile(program // neuron_blocks, n, M, N, L, BLOCK)
    z = tl.load(z_pointer + offsets, exists, 0.0).to(c0.dtype)
    up, down, expm1, sigmoid, tanh = _basis(z, SERIES)
    h = c0 * up + c1 * down + c2 * expm1 + c3 * sigmoid + c4 * tanh
    tl.store(h_pointer + offsets, h, exists)


@triton.jit(do_not_specialize=["M", "shares"])
def _backward(
    g_pointer, z_pointer, coefficients, g_z_pointer, partial, M, N, L, shares, SERIES: tl.constexpr, BLOCK: tl.constexpr
):
    """One program a block of neurons and a share of the tiles: every `shares`-th, so that all advance side by side."""
    program = tl.program_id(0).to(tl.int64)
    neuron_blocks = tl.cdiv(N, BLOCK[1])
    n = program % neuron_blocks * BLOCK[1] + tl.arange(0, BLOCK[1])
    share = program // neuron_blocks
    c0, c1, c2, c3, c4 = _coefficients(coefficients, n, N)
    # Each thread adds up its own elements; they meet across threads once, at the end.
    zeros = tl.zeros(BLOCK, c0.dtype)
    sum0, sum1, sum2, sum3, sum4 = zeros, zeros, zeros, zeros, zeros
    for tile in range(share, tl.cdiv(M, BLOCK[0]) * tl.cdiv(L, BLOCK[2]), shares):
        offsets, exists = _tile(tile, n, M, N, L, BLOCK)
        g = tl.load(g_pointer + offsets, exists, 0.0).to(c0.dtype)  # 0 where nothing is: adds nothing to the sums
        z = tl.load(z_pointer + offsets, exists, 0.0).to(c0.dtype)
        up, down, expm1, sigmoid, tanh = _basis(z, SERIES)
        slope = tl.where(z > 0.0, c0, c1 + c2 * (1.0 + expm1))
        slope += c3 * sigmoid * (1.0 - sigmoid) + c4 * (1.0 - tanh * tanh)
        tl.store(g_z_pointer + offsets, g * slope, exists)
        sum0 += g * up
        sum1 += g * down
        sum2 += g * expm1
        sum3 += g * sigmoid
        sum4 += g * tanh
    sums, row = (sum0, sum1, sum2, sum3, sum4), partial + share * 5 * N + n
    for i in tl.static_range(5):
        tl.store(row + i * N, tl.sum(tl.sum(sums[i], 2), 0), n < N)


@triton.jit(do_not_specialize=["M"])
def _backward_from_result(g_pointer, h_pointer, coefficients, g_z_pointer, M, N, L, BLOCK: tl.constexpr):
    """One program a tile, as in `_forward`."""
    program = tl.program_id(0).to(tl.int64)
    neuron_blocks = tl.cdiv(N, BLOCK[1])
    n = program % neuron_blocks * BLOCK[1] + tl.arange(0, BLOCK[1])
    c0, c1, c2, c3, c4 = _coefficients(coefficients, n, N)
    offsets, exists = _tile(program // neuron_blocks, n, M, N, L, BLOCK)
    g = tl.load(g_pointer + offsets, exists, 0.0).to(c0.dtype)
    h = tl.load(h_pointer + offsets, exists, 0.0).to(c0.dtype)
    slope = tl.where(h > 0.0, c0, c1 + tl.where(c2 != 0.0, h + c2, 0.0))  # c2 exp(z) = h + c2 where it is the curve
    bounded = tl.where((c3 != 0.0) | (c4 != 0.0), h, 0.0)  # of the others, the square may overflow
    slope += c3 * bounded * (1.0 - bounded) + c4 * (1.0 - bounded * bounded)
    tl.store(g_z_pointer + offsets, g * slope, exists)
