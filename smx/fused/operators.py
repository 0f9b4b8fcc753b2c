"""The basis with its gradients: `selective` for phase 1, `combine` for a fixed choice.

Who computes it depends on where: `triton` on a GPU, if Triton is installed; `traced` under `torch.compile`, which makes
kernels of its own of the formulas, without a graph break; `eager` everywhere else.
"""

from __future__ import annotations

import importlib.util
import math
from functools import cache
from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from smx.fused import basis, eager, traced


def selective(z: Tensor, logits: Tensor, noise: Tensor, temperature: float, table: basis.Table, dim: int = 1) -> Tensor:
    """Apply to each neuron the activation of its largest noisy logit, with the gradient of eq. 4.

    Only z, the choice and the noisy logits are kept for the backward pass. Gradients are of first order.

    Args:
        z: (B, N, *), or N on another axis `dim`; any floating dtype.
        logits: (N, K).
        noise: Gumbel noise (N, K).
        temperature: tau of eq. 2.
        table: of the pool.
        dim: the axis of the neurons.

    Returns:
        h, of z's shape and dtype, and in memory as z is.
    """
    h: Tensor = _Selective.apply(z, logits, noise, temperature, table, dim)  # type: ignore[no-untyped-call]
    return h


def combine(z: Tensor, choice: Tensor, table: basis.Table, dim: int = 1) -> Tensor:
    """Apply to each neuron the activation it chose, choice int64 (N,); otherwise as `selective`."""
    h: Tensor = _Combine.apply(z, choice, table, dim)  # type: ignore[no-untyped-call]
    return h


class _Selective(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, z: Tensor, logits: Tensor, noise: Tensor, temperature: float, table: basis.Table, dim: int
    ) -> Tensor:
        dtype = _dtype(z)
        noisy = logits.to(dtype) + noise.to(dtype)
        choice = noisy.argmax(1)
        ctx.save_for_backward(z, noisy, choice)
        ctx.dtype, ctx.temperature, ctx.table, ctx.dim = logits.dtype, temperature, table, dim
        return _forward(z, choice, table, dim)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, Tensor, None, None, None, None]:
        z, noisy, choice = ctx.saved_tensors
        g_z, g_s_NK = _backward(g, z, choice, ctx.table, ctx.dim)
        assert g_s_NK is not None
        y_NK = torch.softmax(noisy / ctx.temperature, 1)
        g_noisy = torch.ops.aten._softmax_backward_data(g_s_NK.to(y_NK.dtype), y_NK, 1, y_NK.dtype)
        return g_z, (g_noisy / ctx.temperature).to(ctx.dtype), None, None, None, None


class _Combine(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, z: Tensor, choice: Tensor, table: basis.Table, dim: int) -> Tensor:
        ctx.save_for_backward(z, choice)
        ctx.table, ctx.dim = table, dim
        return _forward(z, choice, table, dim)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None, None, None]:
        z, choice = ctx.saved_tensors
        return _backward(g, z, choice, ctx.table, ctx.dim, sums=False)[0], None, None, None


def _forward(z: Tensor, choice: Tensor, table: basis.Table, dim: int) -> Tensor:
    if torch.compiler.is_compiling():
        return traced.forward(z, _coefficients(z, table)[:, choice], dim)
    kernels, z = _kernels(z.is_cuda), _dense(z, dim)
    numbers = _columns(table, kernels, _dtype(z), z.device).index_select(1, choice)
    h = torch.empty_like(z)
    kernels.forward(_flat(z, dim), numbers, _flat(h, dim))
    return h


def _backward(
    g: Tensor, z: Tensor, choice: Tensor, table: basis.Table, dim: int, sums: bool = True
) -> tuple[Tensor, Tensor | None]:
    """Return the gradients of z and, if wanted, of s: (N, K), the sums of g f_k(z), in float64."""
    # In float64, which costs nothing for so few numbers: autocast leaves it alone.
    if torch.compiler.is_compiling():
        g_z, totals = traced.backward(g, z, _coefficients(z, table)[:, choice], dim)
        return g_z, totals.double().t() @ _coefficients(z, table).double()
    kernels, z = _kernels(z.is_cuda), _dense(z, dim)
    numbers = _columns(table, kernels, _dtype(z), z.device).index_select(1, choice)
    g, g_z = g if g.stride() == z.stride() else torch.empty_like(z).copy_(g), torch.empty_like(z)
    totals = kernels.backward(_flat(g, dim), _flat(z, dim), numbers, _flat(g_z, dim), sums)
    if totals is None:
        return g_z, None
    return g_z, totals.double().t() @ _columns(table, kernels, torch.float64, z.device)[: len(totals)]


def _dtype(z: Tensor) -> torch.dtype:
    return torch.float64 if z.dtype == torch.float64 else torch.float32


def _kernels(cuda: bool) -> ModuleType:
    return _triton() or eager if cuda else eager


@cache
def _triton() -> ModuleType | None:
    return importlib.import_module("smx.fused.triton") if importlib.util.find_spec("triton") else None


def _coefficients(z: Tensor, table: basis.Table) -> Tensor:
    return torch.tensor(table, dtype=_dtype(z), device=z.device).t()


@cache
def _columns(table: basis.Table, kernels: ModuleType, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return each activation's numbers, as the kernels want them.

    They stay on the device, because copying them there would end the capture of a CUDA graph.
    """
    columns: Tensor = kernels.expand(torch.tensor(table, dtype=torch.float64).t()).to(device, dtype)
    return columns


def _dense(z: Tensor, dim: int) -> Tensor:
    """Return z in one piece of memory, the neurons' axis where it is or, as in channels-last tensors, the last one."""
    return z if z.is_contiguous() or z.movedim(dim, -1).is_contiguous() else z.contiguous()


def _flat(z: Tensor, dim: int) -> Tensor:
    """Return a dense tensor as (M, N, L), without a copy."""
    dim %= z.dim()
    if not z.is_contiguous():
        return z.movedim(dim, -1).view(-1, z.shape[dim], 1)
    return z.view(math.prod(z.shape[:dim]), z.shape[dim], math.prod(z.shape[dim + 1 :]))
