"""The basis as operators of PyTorch, with their gradients: `selective` for phase 1, `combine` where the choice is fixed.

What they do is registered in PyTorch's library, so that `torch.compile` takes it as it is, without a graph break. On a
GPU it is one Triton kernel forward and one backward, where Triton is installed; elsewhere it is `eager`.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable
from functools import cache
from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from smx.fused import basis, eager

_library = torch.library.Library("smx", "DEF")  # type: ignore[no-untyped-call]
for _schema in (
    "selective(Tensor z, Tensor noisy, float[] table, int dim) -> Tensor",
    "selective_backward(Tensor g, Tensor z, Tensor noisy, float temperature, float[] table, int dim) -> (Tensor, Tensor)",
    "combine(Tensor z, Tensor choice, float[] table, int dim) -> Tensor",
    "combine_backward(Tensor g, Tensor z, Tensor choice, float[] table, int dim) -> Tensor",
):
    _library.define(_schema)  # type: ignore[no-untyped-call]


def selective(z: Tensor, noisy: Tensor, temperature: float, table: basis.Table, dim: int = 1) -> Tensor:
    """Apply to each neuron the activation of its largest noisy logit, with the gradient of eq. 4.

    Only z and the noisy logits are kept for the backward pass. Gradients are of first order.

    Args:
        z: (B, N, *), or N on another axis `dim`; any floating dtype.
        noisy: logits + Gumbel noise (N, K), float64 where z is, otherwise float32.
        temperature: tau of eq. 2.
        table: of the pool.
        dim: the axis of the neurons.

    Returns:
        h, of z's shape and dtype, and in channels-last order where z is.
    """
    h: Tensor = _Selective.apply(z, noisy, temperature, _flat(table), dim)  # type: ignore[no-untyped-call]
    return h


def combine(z: Tensor, choice: Tensor, table: basis.Table, dim: int = 1) -> Tensor:
    """Apply to each neuron the activation it chose, choice int64 (N,); otherwise as `selective`."""
    h: Tensor = _Combine.apply(z, choice, _flat(table), dim)  # type: ignore[no-untyped-call]
    return h


class _Selective(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, z: Tensor, noisy: Tensor, temperature: float, table: list[float], dim: int) -> Tensor:
        ctx.save_for_backward(z, noisy)
        ctx.rest = (temperature, table, dim)
        h: Tensor = torch.ops.smx.selective(z, noisy, table, dim)
        return h

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        g_z, g_noisy = torch.ops.smx.selective_backward(g, *ctx.saved_tensors, *ctx.rest)
        return g_z, g_noisy, None, None, None


class _Combine(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, z: Tensor, choice: Tensor, table: list[float], dim: int) -> Tensor:
        ctx.save_for_backward(z, choice)
        ctx.rest = (table, dim)
        h: Tensor = torch.ops.smx.combine(z, choice, table, dim)
        return h

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None, None, None]:
        return torch.ops.smx.combine_backward(g, *ctx.saved_tensors, *ctx.rest), None, None, None


def _selective(z: Tensor, noisy: Tensor, table: list[float], dim: int) -> Tensor:
    return _combine(z, noisy.argmax(1), table, dim)


def _selective_backward(
    g: Tensor, z: Tensor, noisy: Tensor, temperature: float, table: list[float], dim: int
) -> tuple[Tensor, Tensor]:
    kernels, (z_MNL, as_z) = _kernels(z), _view(z, dim)
    g_z, sums = kernels.backward(_view_like(g, z, dim), z_MNL, _numbers(z, noisy.argmax(1), table))
    # In float64, which costs nothing here: autocast leaves it alone.
    columns = _columns(tuple(table), kernels, torch.float64, z.device)[: len(sums)]
    g_s_NK = (sums.double().t() @ columns).to(noisy.dtype)
    y_NK = torch.softmax(noisy / temperature, 1)
    g_noisy = torch.ops.aten._softmax_backward_data(g_s_NK, y_NK, 1, y_NK.dtype)
    return as_z(g_z), g_noisy.div_(temperature)


def _combine(z: Tensor, choice: Tensor, table: list[float], dim: int) -> Tensor:
    z_MNL, as_z = _view(z, dim)
    return as_z(_kernels(z).forward(z_MNL, _numbers(z, choice, table)))


def _combine_backward(g: Tensor, z: Tensor, choice: Tensor, table: list[float], dim: int) -> Tensor:
    z_MNL, as_z = _view(z, dim)
    return as_z(_kernels(z).backward(_view_like(g, z, dim), z_MNL, _numbers(z, choice, table), False)[0])


def _kernels(z: Tensor) -> ModuleType:
    return _triton() or eager if z.is_cuda else eager


@cache
def _triton() -> ModuleType | None:
    return importlib.import_module("smx.fused.triton") if importlib.util.find_spec("triton") else None


def _flat(table: basis.Table) -> list[float]:
    return [number for column in table for number in column]


def _numbers(z: Tensor, choice: Tensor, table: list[float]) -> Tensor:
    """Return each neuron's numbers, as the kernels want them."""
    dtype = torch.float64 if z.dtype == torch.float64 else torch.float32
    return _columns(tuple(table), _kernels(z), dtype, z.device).index_select(1, choice)


@cache
def _columns(table: tuple[float, ...], kernels: ModuleType, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return each activation's numbers on a device; kept, because copying them would end a CUDA graph's capture."""
    return kernels.expand(torch.tensor(table, dtype=torch.float64).reshape(-1, basis.SIZE).t()).to(device, dtype)  # type: ignore[no-any-return]


def _view(z: Tensor, dim: int) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """Return z as (M, N, L), contiguous, and the way back; channels-last tensors are (M, N, 1) without a copy."""
    dim %= z.dim()
    if not z.is_contiguous() and z.movedim(dim, -1).is_contiguous():
        last = z.movedim(dim, -1)
        return last.reshape(-1, z.shape[dim], 1), lambda h: h.view(last.shape).movedim(-1, dim)
    shape = z.shape
    flat = z.contiguous().view(math.prod(shape[:dim]), shape[dim], math.prod(shape[dim + 1 :]))
    return flat, lambda h: h.view(shape)


def _view_like(g: Tensor, z: Tensor, dim: int) -> Tensor:
    return _view(g if g.stride() == z.stride() else torch.empty_like(z).copy_(g), dim)[0]


def _like(z: Tensor, dim: int) -> Tensor:
    z_MNL, as_z = _view(z, dim)
    return as_z(torch.empty_like(z_MNL))


for _name, _run, _fake in (
    ("selective", _selective, lambda z, noisy, table, dim: _like(z, dim)),
    (
        "selective_backward",
        _selective_backward,
        lambda g, z, noisy, temperature, table, dim: (_like(z, dim), torch.empty_like(noisy)),
    ),
    ("combine", _combine, lambda z, choice, table, dim: _like(z, dim)),
    ("combine_backward", _combine_backward, lambda g, z, choice, table, dim: _like(z, dim)),
):
    _library.impl(_name, _run, "CompositeExplicitAutograd")  # type: ignore[no-untyped-call]
    torch.library.register_fake(f"smx::{_name}", _fake, lib=_library)
