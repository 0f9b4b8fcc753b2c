"""The basis with its gradients: `selective` for phase 1, `combine` for a fixed choice.

Who computes it depends on where: `triton` on a GPU, if Triton is installed; `traced` under `torch.compile`, which makes
kernels of its own of the formulas, without a graph break; `eager` everywhere else.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from functools import cache, wraps
from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from smx.fused import basis, eager, traced

Numbers = Any
"""What a kernel takes of the neurons' choice; its own affair."""


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


def combine(z: Tensor, numbers: Numbers, dim: int = 1, *, keep_result: bool = False) -> Tensor:
    """Apply to each neuron the activation it chose; otherwise as `selective`.

    Args:
        z: (B, N, *), or N on another axis `dim`; any floating dtype.
        numbers: see `numbers_of`.
        dim: the axis of the neurons.
        keep_result: keep h for the backward pass, as `nn.ReLU` does it, so that nothing may write into it. This is
            cheaper, because what comes next keeps it anyway; otherwise z is kept, and h computed again.
    """
    h: Tensor = _Combine.apply(z, numbers, dim, keep_result)  # type: ignore[no-untyped-call]
    return h


def numbers_of(choice: Tensor, table: basis.Table, z: Tensor, dim: int = 1) -> Numbers:
    """Return what `combine` takes of a choice int64 (N,), for every z with this device, dtype and number of axes."""
    if torch.compiler.is_compiling():
        return _coefficients(z, table)[:, choice]
    return _numbers(choice, table, True, z, dim)


def _first_order(backward: Callable[..., Any]) -> Callable[..., Any]:
    """Refuse second derivatives, as `once_differentiable` does it, at no cost where none can be meant."""
    guarded = once_differentiable(backward)

    @wraps(backward)
    def first_order(ctx: Any, g: Tensor) -> Any:
        return guarded(ctx, g) if torch.is_grad_enabled() else backward(ctx, g)

    return first_order


class _Selective(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, z: Tensor, logits: Tensor, noise: Tensor, temperature: float, table: basis.Table, dim: int
    ) -> Tensor:
        dtype = _dtype(z)
        noisy = logits.to(dtype) + noise.to(dtype)
        choice = noisy.argmax(1)
        ctx.dtype, ctx.temperature, ctx.table, ctx.dim = logits.dtype, temperature, table, dim
        if torch.compiler.is_compiling():
            ctx.save_for_backward(z, noisy, choice)
            return traced.forward(z, _coefficients(z, table)[:, choice], dim)
        ctx.save_for_backward(z, noisy)
        ctx.numbers = _numbers(choice, table, False, z, dim)
        h: Tensor = _kernels(z.is_cuda).forward(z, ctx.numbers, dim)
        return h

    @staticmethod
    @_first_order
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, Tensor, None, None, None, None]:
        z, noisy, *choice = ctx.saved_tensors
        if torch.compiler.is_compiling():
            weights_KJ = _coefficients(z, ctx.table).t()
            g_z, sums_JN = traced.backward(g, z, weights_KJ.t()[:, choice[0]], ctx.dim)
        else:
            kernels = _kernels(z.is_cuda)
            g_z, sums_JN = kernels.backward(g, z, ctx.numbers, ctx.dim)
            weights_KJ = _of_sums(ctx.table, kernels, noisy.dtype, z.device)
        # As (K, N) and into memory that is there: autocast leaves such a product alone, and rows of N are quick.
        g_s_KN, scaled_KN = noisy.new_empty(2, *noisy.t().shape).unbind()
        torch.mm(weights_KJ, sums_JN, out=g_s_KN)
        y_KN = torch.softmax(torch.div(noisy.t(), ctx.temperature, out=scaled_KN), 0)
        g_noisy_KN = torch.ops.aten._softmax_backward_data.default(g_s_KN, y_KN, 0, y_KN.dtype)
        g_logits = torch.div(g_noisy_KN.t(), ctx.temperature, out=torch.empty_like(noisy))
        return g_z, g_logits.to(ctx.dtype), None, None, None, None


class _Combine(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, z: Tensor, numbers: Numbers, dim: int, keep_result: bool) -> Tensor:
        if torch.compiler.is_compiling():  # nothing is written into there: the compiler sees to it
            h = traced.forward(z, numbers, dim)
            ctx.save_for_backward(h, numbers)
        else:
            h = _kernels(z.is_cuda).forward(z, numbers, dim)
            ctx.save_for_backward(h if keep_result else z)
            ctx.numbers, ctx.keep_result = numbers, keep_result
        ctx.dim = dim
        return h

    @staticmethod
    @_first_order
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None, None, None]:
        kept, *coefficients = ctx.saved_tensors
        if torch.compiler.is_compiling():
            return traced.backward_from_result(g, kept, coefficients[0], ctx.dim), None, None, None
        kernels = _kernels(kept.is_cuda)
        h = kept if ctx.keep_result else kernels.forward(kept, ctx.numbers, ctx.dim)
        return kernels.backward_from_result(g, h, ctx.numbers, ctx.dim), None, None, None


def _numbers(choice: Tensor, table: basis.Table, fixed: bool, z: Tensor, dim: int) -> Numbers:
    kernels = _kernels(z.is_cuda)
    columns = _columns(table, kernels, fixed, _dtype(z), z.device)
    return kernels.numbers(columns, choice, -1 - dim if dim < 0 else z.dim() - 1 - dim)


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
def _columns(table: basis.Table, kernels: ModuleType, fixed: bool, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return each activation's numbers, as the kernels want them.

    They stay on the device, because copying them there would end the capture of a CUDA graph.
    """
    columns: Tensor = kernels.expand(torch.tensor(table, dtype=torch.float64).t(), fixed=fixed)
    return columns.to(device, dtype)


@cache
def _of_sums(table: basis.Table, kernels: ModuleType, dtype: torch.dtype, device: torch.device) -> Tensor:
    weights: Tensor = kernels.of_sums(torch.tensor(table, dtype=torch.float64).t()).t().contiguous()
    return weights.to(device, dtype)
