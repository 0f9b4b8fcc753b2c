"""The basis (`smx.fused.basis`) on a GPU: one Triton kernel forward, one backward, and one for a fixed choice backward.

Shapes: M examples, N neurons, L positions of each neuron (1 in a plain network, height times width in a convolution),
contiguous in this order; c = coefficients (5, N). A program works on tiles (BLOCK_M, BLOCK_N, BLOCK_L) of z. Memory is
read in long runs when a tile extends along what lies side by side: neurons where L is 1, positions where L is large.
So the one choice in `_plan` serves both layouts, and the kernels need no division to find an element.

Everything here is fixed by the shapes alone: no tuning at run time, no synchronisation, no atomics. So the same input
gives the same bits, and all functions can be captured in a CUDA graph once a first call has compiled the kernels.
"""
# mypy: disallow-untyped-decorators=False

from __future__ import annotations

import math
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

TILE = 1024  # elements of z: four a thread, so that the backward pass keeps five running sums for each in registers
RUN = 64  # elements side by side that make reading efficient: 128 bytes of bfloat16, 256 of float32
PROGRAMS = 1024  # of the backward pass, at most: enough to fill a GPU, while their partial sums stay small beside z
SERIES32, SERIES64 = (tuple(1 / math.factorial(k) for k in range(terms, 0, -1)) for terms in (6, 12))
"""Taylor coefficients of expm1, the highest power first: on [-1/4, 0] exact to the last bits of either type."""


def expand(coefficients: Tensor, *, fixed: bool) -> Tensor:
    """Return what the kernels take of coefficients (5, K), of a fixed choice or not: the same."""
    return coefficients


def of_sums(coefficients: Tensor) -> Tensor:
    """Return (5, K): what the sums of `backward` are multiplied with to give the sums of g f_k(z)."""
    return coefficients


def numbers(columns: Tensor, choice: Tensor, behind: int = 0) -> Tensor:
    """Return for each neuron the column of what it chose, (5, N), for columns (5, K) and a choice int64 (N,)."""
    return columns.index_select(1, choice)


def forward(z: Tensor, coefficients: Tensor, dim: int = 1) -> Tensor:
    """Return h = sum_j c[j] b_j(z), of z's shape and dtype, and in memory as z is.

    Args:
        z: (B, N, *), or N on another axis `dim`, on a GPU; float16, bfloat16, float32 or float64.
        coefficients: (5, N), float64 where z is, otherwise float32; the arithmetic has this dtype.
        dim: the axis of the neurons.
    """
    z = _dense(z, dim)
    h = torch.empty_like(z)
    flat = _flat(z, dim)
    constants, tiles, neuron_blocks = _plan(flat)
    with torch.cuda.device_of(z):  # type: ignore[no-untyped-call] # Triton launches on the current device
        _forward[(tiles * neuron_blocks,)](flat, coefficients.contiguous(), _flat(h, dim), *flat.shape, **constants)
    return h


def backward(g: Tensor, z: Tensor, coefficients: Tensor, dim: int = 1) -> tuple[Tensor, Tensor]:
    """Return the gradients of z and of the coefficients.

    At z = 0 the slopes are those of z < 0, as PyTorch has it for ReLU, Leaky ReLU, ELU and SELU.

    Args:
        g: the gradient of h, of its shape and dtype.
        z, coefficients, dim: as in `forward`.

    Returns:
        g dh/dz, of z's shape and dtype, and (5, N): the sums of g b_j(z) over all other axes.
    """
    z = _dense(z, dim)
    g, g_z, flat = _as(z, g), torch.empty_like(z), _flat(z, dim)
    constants, tiles, neuron_blocks = _plan(flat)
    # Each program writes the partial sums of its share of the tiles; adding the shares up is left to PyTorch.
    shares = min(tiles, max(1, PROGRAMS // neuron_blocks))
    partial = coefficients.new_empty((shares, *coefficients.shape))
    with torch.cuda.device_of(z):  # type: ignore[no-untyped-call]
        _backward[(shares * neuron_blocks,)](
            _flat(g, dim),
            flat,
            coefficients.contiguous(),
            _flat(g_z, dim),
            partial,
            *flat.shape,
            shares,
            **constants,
        )
    return g_z, partial.sum(0)


def backward_from_result(g: Tensor, h: Tensor, coefficients: Tensor, dim: int = 1) -> Tensor:
    """Return the gradient of z where the choice is fixed, given the result h in place of z.

    Args:
        g: the gradient of h, of its shape and dtype.
        h: what `forward` returned.
        coefficients, dim: as in `forward`.
    """
    g, g_z, flat = _as(h, g), torch.empty_like(h), _flat(h, dim)
    constants, tiles, neuron_blocks = _plan(flat)
    del constants["SERIES"]
    with torch.cuda.device_of(h):  # type: ignore[no-untyped-call]
        _backward_from_result[(tiles * neuron_blocks,)](
            _flat(g, dim), flat, coefficients.contiguous(), _flat(g_z, dim), *flat.shape, **constants
        )
    return g_z


def prepared(numbers: Tensor) -> Tensor:
    """Return what the passes take of `numbers`: the same."""
    return numbers


def backward_from_input(g: Tensor, z: Tensor, coefficients: Tensor, dim: int = 1) -> Tensor:
    """Do what `backward_from_result` does, where z was kept: the result is computed again."""
    h = forward(z.to(coefficients.dtype), coefficients, dim)
    return backward_from_result(g.to(h.dtype), h, coefficients, dim).to(z.dtype)


def _dense(z: Tensor, dim: int) -> Tensor:
    """Return z in one piece of memory, the neurons' axis where it is or, as in channels-last tensors, the last one."""
    return z if z.is_contiguous() or z.movedim(dim, -1).is_contiguous() else z.contiguous()


def _as(z: Tensor, g: Tensor) -> Tensor:
    """Return g in memory as z is."""
    return g if g.stride() == z.stride() else torch.empty_like(z).copy_(g)


def _flat(z: Tensor, dim: int) -> Tensor:
    """Return a dense tensor as (M, N, L), without a copy."""
    dim %= z.dim()
    if not z.is_contiguous():
        return z.movedim(dim, -1).view(-1, z.shape[dim], 1)
    return z.view(math.prod(z.shape[:dim]), z.shape[dim], math.prod(z.shape[dim + 1 :]))


def _plan(z: Tensor) -> tuple[dict[str, Any], int, int]:
    """Return what the kernels are compiled for, how many tiles each neuron has, and in how many blocks neurons come.

    A tile goes along L, then along N until `RUN` elements lie side by side, and the rest of it along M.
    """
    M, N, L = z.shape
    block_l = min(triton.next_power_of_2(max(L, 1)), TILE)
    block_n = min(triton.next_power_of_2(N), max(1, RUN // block_l))
    block_m = TILE // (block_n * block_l)
    constants = {
        "SERIES": SERIES64 if z.dtype == torch.float64 else SERIES32,
        "BLOCK_M": block_m,
        "BLOCK_N": block_n,
        "BLOCK_L": block_l,
        "num_warps": 8,
        "enable_fp_fusion": True,  # Triton's default up to 3.9, which warns that 3.10 will have another
    }
    return constants, triton.cdiv(M, block_m) * triton.cdiv(L, block_l), triton.cdiv(N, block_n)


@triton.jit
def _basis(z: tl.tensor, SERIES: tl.constexpr) -> tuple[tl.tensor, ...]:
    """Return the five functions of the basis at z, all of them from one exponential that can't overflow.

    With e = exp(-|z|) and m = expm1(-|z|): sigmoid(|z|) = 1 / (1 + e), sigmoid(-|z|) = e / (1 + e),
    expm1(-2|z|) = m (m + 2), and tanh(|z|) = -m (m + 2) / (2 + m (m + 2)).
    """
    a = -tl.abs(z)
    e = tl.exp(a)
    # e - 1 loses its digits near 0. There the series a + a^2/2! + a^3/3! ... keeps them, and so do, being
    # multiples of m, ELU and tanh of small z.
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
def _tile(
    tile: tl.tensor,
    n: tl.tensor,
    M: tl.tensor,
    N: tl.tensor,
    L: tl.tensor,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_L: tl.constexpr,
) -> tuple[tl.tensor, tl.tensor]:
    """Return the offsets of a tile's elements, (BLOCK_M, BLOCK_N, BLOCK_L), and which of them exist.

    `tile` is int64, and makes everything derived from it so: a tensor may have more than 2**31 elements.
    """
    blocks_l = tl.cdiv(L, BLOCK_L)
    examples = (tile // blocks_l * BLOCK_M + tl.arange(0, BLOCK_M))[:, None, None]
    neurons = n[None, :, None]
    positions = (tile % blocks_l * BLOCK_L + tl.arange(0, BLOCK_L))[None, None, :]
    return (examples * N + neurons) * L + positions, (examples < M) & (neurons < N) & (positions < L)


@triton.jit
def _coefficients(pointer: tl.tensor, n: tl.tensor, N: tl.tensor) -> tuple[tl.tensor, ...]:
    """Load the five coefficients of the neurons n, each (1, BLOCK_N, 1)."""
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
def _forward(
    z_pointer: tl.tensor,
    coefficients: tl.tensor,
    h_pointer: tl.tensor,
    M: tl.tensor,
    N: tl.tensor,
    L: tl.tensor,
    SERIES: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_L: tl.constexpr,
) -> None:
    """One program a tile. Neighbouring programs have neighbouring neurons, so that they read neighbouring memory."""
    program = tl.program_id(0).to(tl.int64)
    neuron_blocks = tl.cdiv(N, BLOCK_N)
    n = program % neuron_blocks * BLOCK_N + tl.arange(0, BLOCK_N)
    c0, c1, c2, c3, c4 = _coefficients(coefficients, n, N)
    offsets, exists = _tile(program // neuron_blocks, n, M, N, L, BLOCK_M, BLOCK_N, BLOCK_L)
    z = tl.load(z_pointer + offsets, exists, 0.0).to(c0.dtype)
    up, down, expm1, sigmoid, tanh = _basis(z, SERIES)
    h = c0 * up + c1 * down + c2 * expm1 + c3 * sigmoid + c4 * tanh
    tl.store(h_pointer + offsets, h, exists)


@triton.jit(do_not_specialize=["M", "shares"])
def _backward(
    g_pointer: tl.tensor,
    z_pointer: tl.tensor,
    coefficients: tl.tensor,
    g_z_pointer: tl.tensor,
    partial: tl.tensor,
    M: tl.tensor,
    N: tl.tensor,
    L: tl.tensor,
    shares: tl.tensor,
    SERIES: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_L: tl.constexpr,
) -> None:
    """One program a block of neurons and a share of the tiles: every `shares`-th, so that all advance side by side."""
    program = tl.program_id(0).to(tl.int64)
    neuron_blocks = tl.cdiv(N, BLOCK_N)
    n = program % neuron_blocks * BLOCK_N + tl.arange(0, BLOCK_N)
    share = program // neuron_blocks
    c0, c1, c2, c3, c4 = _coefficients(coefficients, n, N)
    # Each thread adds up its own elements; they meet across threads once, at the end.
    sum0 = tl.zeros([BLOCK_M, BLOCK_N, BLOCK_L], c0.dtype)
    sum1 = tl.zeros([BLOCK_M, BLOCK_N, BLOCK_L], c0.dtype)
    sum2 = tl.zeros([BLOCK_M, BLOCK_N, BLOCK_L], c0.dtype)
    sum3 = tl.zeros([BLOCK_M, BLOCK_N, BLOCK_L], c0.dtype)
    sum4 = tl.zeros([BLOCK_M, BLOCK_N, BLOCK_L], c0.dtype)
    for tile in range(share, tl.cdiv(M, BLOCK_M) * tl.cdiv(L, BLOCK_L), shares):
        offsets, exists = _tile(tile, n, M, N, L, BLOCK_M, BLOCK_N, BLOCK_L)
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
    row = partial + share * 5 * N + n
    tl.store(row, tl.sum(tl.sum(sum0, 2), 0), n < N)
    tl.store(row + N, tl.sum(tl.sum(sum1, 2), 0), n < N)
    tl.store(row + 2 * N, tl.sum(tl.sum(sum2, 2), 0), n < N)
    tl.store(row + 3 * N, tl.sum(tl.sum(sum3, 2), 0), n < N)
    tl.store(row + 4 * N, tl.sum(tl.sum(sum4, 2), 0), n < N)


@triton.jit(do_not_specialize=["M"])
def _backward_from_result(
    g_pointer: tl.tensor,
    h_pointer: tl.tensor,
    coefficients: tl.tensor,
    g_z_pointer: tl.tensor,
    M: tl.tensor,
    N: tl.tensor,
    L: tl.tensor,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_L: tl.constexpr,
) -> None:
    """One program a tile, as in `_forward`."""
    program = tl.program_id(0).to(tl.int64)
    neuron_blocks = tl.cdiv(N, BLOCK_N)
    n = program % neuron_blocks * BLOCK_N + tl.arange(0, BLOCK_N)
    c0, c1, c2, c3, c4 = _coefficients(coefficients, n, N)
    offsets, exists = _tile(program // neuron_blocks, n, M, N, L, BLOCK_M, BLOCK_N, BLOCK_L)
    g = tl.load(g_pointer + offsets, exists, 0.0).to(c0.dtype)
    h = tl.load(h_pointer + offsets, exists, 0.0).to(c0.dtype)
    slope = tl.where(h > 0.0, c0, c1 + tl.where(c2 != 0.0, h + c2, 0.0))  # c2 exp(z) = h + c2 where it is the curve
    bounded = tl.where((c3 != 0.0) | (c4 != 0.0), h, 0.0)  # of the others, the square may overflow
    slope += c3 * bounded * (1.0 - bounded) + c4 * (1.0 - bounded * bounded)
    tl.store(g_z_pointer + offsets, g * slope, exists)
