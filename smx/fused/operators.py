"""The basis as operators of PyTorch, with their gradients: `combine`, and `sampled` for its coefficients.

They are registered in PyTorch's library, so that `torch.compile` takes them as they are, without a graph break. On a
GPU `combine` is one Triton kernel forward and one backward, where Triton is installed; elsewhere it is `eager`.
"""

from __future__ import annotations

import importlib.util
from functools import cache
from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from smx.fused import basis, eager

_library = torch.library.Library("smx", "DEF")  # type: ignore[no-untyped-call]
for _schema in (
    "combine(Tensor z, Tensor coefficients) -> Tensor",
    "combine_backward(Tensor g, Tensor z, Tensor coefficients, bool sums) -> (Tensor, Tensor)",
    "coefficients(Tensor choice, Tensor like, float[] numbers) -> Tensor",
):
    _library.define(_schema)  # type: ignore[no-untyped-call]


def combine(z: Tensor, coefficients: Tensor, dim: int = 1) -> Tensor:
    """Apply to each neuron its combination of the basis: h = sum_j c[j, n] b_j(z), see `smx.fused.basis`.

    Only z and the coefficients are kept for the backward pass. Gradients are of first order.

    Args:
        z: (B, N, *), or N on another axis `dim`; any floating dtype.
        coefficients: (5, N), float64 where z is, otherwise float32.
        dim: the axis of the neurons.

    Returns:
        h, of z's shape and dtype, and in channels-last order where z is.
    """
    dim %= z.dim()
    if dim == 1 and z.dim() > 3 and not z.is_contiguous() and z.movedim(1, -1).is_contiguous():
        return combine(z.movedim(1, -1), coefficients, -1).movedim(-1, 1)
    z_MNL = z.reshape(z.shape[:dim].numel(), z.shape[dim], z.shape[dim + 1 :].numel())
    h_MNL: Tensor = _Combine.apply(z_MNL, coefficients)  # type: ignore[no-untyped-call]
    return h_MNL.reshape(z.shape)


def coefficients(choice: Tensor, table: basis.Table, like: Tensor) -> Tensor:
    """Return each neuron's coefficients (5, N), of the dtype and on the device of `like`, for choice int64 (N,)."""
    numbers = [number for column in table for number in column]
    found: Tensor = torch.ops.smx.coefficients(choice, like, numbers)
    return found


def sampled(logits: Tensor, noise: Tensor, temperature: float, table: basis.Table) -> Tensor:
    """Return each neuron's coefficients (5, N): those of its largest noisy logit, with the gradient of eq. 4.

    Args:
        logits: (N, K), float32 or float64.
        noise: Gumbel noise (N, K), of the same dtype.
        temperature: tau of eq. 2.
        table: the numbers of the pool's activations.
    """
    found: Tensor = _Sampled.apply(logits, noise, temperature, table)  # type: ignore[no-untyped-call]
    return found


class _Combine(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, z: Tensor, coefficients: Tensor) -> Tensor:
        ctx.save_for_backward(z, coefficients)
        h: Tensor = torch.ops.smx.combine(z, coefficients)
        return h

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, Tensor | None]:
        z, coefficients = ctx.saved_tensors
        sums: bool = ctx.needs_input_grad[1]
        g_z, g_coefficients = torch.ops.smx.combine_backward(g.contiguous(), z, coefficients, sums)
        return g_z, g_coefficients if sums else None


class _Sampled(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, noise: Tensor, temperature: float, table: basis.Table) -> Tensor:
        noisy = logits + noise
        ctx.save_for_backward(noisy)
        ctx.temperature, ctx.table = temperature, table
        return coefficients(noisy.argmax(1), table, noisy)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None, None, None]:
        (noisy,) = ctx.saved_tensors
        every = torch.arange(len(ctx.table), device=g.device)
        g_s_NK = g.t() @ coefficients(every, ctx.table, g)
        y_NK = torch.softmax(noisy / ctx.temperature, 1)
        return y_NK * (g_s_NK - (y_NK * g_s_NK).sum(1, keepdim=True)) / ctx.temperature, None, None, None


def _kernels(z: Tensor) -> ModuleType:
    return _triton() or eager if z.is_cuda else eager


@cache
def _triton() -> ModuleType | None:
    return importlib.import_module("smx.fused.triton") if importlib.util.find_spec("triton") else None


def _combine(z: Tensor, coefficients: Tensor) -> Tensor:
    h: Tensor = _kernels(z).forward(z.contiguous(), coefficients)
    return h


def _combine_backward(g: Tensor, z: Tensor, coefficients: Tensor, sums: bool) -> tuple[Tensor, Tensor]:
    g_z, g_coefficients = _kernels(z).backward(g, z.contiguous(), coefficients, sums)
    return g_z, coefficients.new_empty(0) if g_coefficients is None else g_coefficients


def _coefficients(choice: Tensor, like: Tensor, numbers: list[float]) -> Tensor:
    return _table(tuple(numbers), like.dtype, choice.device).index_select(1, choice)


@cache
def _table(numbers: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return (5, K) on a device; kept, because copying it there would end the capture of a CUDA graph."""
    return torch.tensor(numbers, dtype=dtype, device=device).reshape(-1, basis.SIZE).t().contiguous()


def _combine_fake(z: Tensor, coefficients: Tensor) -> Tensor:
    return torch.empty_like(z, memory_format=torch.contiguous_format)


def _combine_backward_fake(g: Tensor, z: Tensor, coefficients: Tensor, sums: bool) -> tuple[Tensor, Tensor]:
    g_z = torch.empty_like(z, memory_format=torch.contiguous_format)
    return g_z, torch.empty_like(coefficients) if sums else coefficients.new_empty(0)


def _coefficients_fake(choice: Tensor, like: Tensor, numbers: list[float]) -> Tensor:
    return like.new_empty(basis.SIZE, len(choice))


for _name, _run, _fake in (
    ("combine", _combine, _combine_fake),
    ("combine_backward", _combine_backward, _combine_backward_fake),
    ("coefficients", _coefficients, _coefficients_fake),
):
    _library.impl(_name, _run, "CompositeExplicitAutograd")  # type: ignore[no-untyped-call]
    torch.library.register_fake(f"smx::{_name}", _fake, lib=_library)
