"""The basis with its gradients: `selective` for phase 1, `combine` for a fixed choice.

Who computes it depends on where: `triton` on a GPU, if Triton is installed; `eager` everywhere else. Under
`torch.compile` all of it is `traced`: formulas, of which the compiler makes kernels of its own, without a graph break.
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

from smx.fused import eager, traced
from smx.fused.basis import Table
from smx.fused.constants import made_once

Numbers = Any
"""What a kernel takes of the neurons' choice; its own affair."""


def selective(z: Tensor, logits: Tensor, noise: Tensor, temperature: float, table: Table, dim: int = 1) -> Tensor:
    """Apply to each neuron the activation of its largest noisy logit, with the gradient of eq. 4.

    Only z, the noisy logits and the numbers of what was chosen are kept for the backward pass. Gradients are of first
    order.

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
    if z.dim() == 1:
        return selective(z[None], logits, noise, temperature, table)[0]
    if torch.compiler.is_compiling():
        return traced.selective(z, logits, noise, temperature, table, dim)
    h: Tensor = _Selective.apply(z, logits, noise, temperature, table, dim)  # type: ignore[no-untyped-call]
    return h


def combine(z: Tensor, choice: Tensor, table: Table, dim: int = 1) -> Tensor:
    """Apply to each neuron the activation it chose, choice int64 (N,); otherwise as `selective`. Only z is kept."""
    if z.dim() == 1:
        return combine(z[None], choice, table)[0]
    if torch.compiler.is_compiling():
        return traced.combine(z, choice, table, dim)
    return combine_prepared(z, prepare(z, choice, table, dim), dim)


def prepare(z: Tensor, choice: Tensor, table: Table, dim: int = 1) -> Numbers:
    """Return what `combine_prepared` takes of a choice, for every z with this device, dtype and number of axes."""
    return _kernels(z.is_cuda).prepared(_numbers(choice, table, True, z, dim))


def combine_prepared(z: Tensor, numbers: Numbers, dim: int = 1, keep_result: bool = False) -> Tensor:
    """Do what `combine` does, not under `torch.compile`.

    Args:
        z: (B, N, *), or N on another axis `dim`; any floating dtype.
        numbers: see `prepare`.
        dim: the axis of the neurons.
        keep_result: keep h for the backward pass, as `nn.ReLU` does it, so that nothing may write into it. This is
            cheaper, because what comes next keeps it anyway; otherwise z is kept, and h computed again.
    """
    if z.dim() == 1:
        return combine_prepared(z[None], numbers, keep_result=keep_result)[0]
    h: Tensor = _Combine.apply(z, numbers, dim, keep_result)  # type: ignore[no-untyped-call]
    return h


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
        ctx: Any, z: Tensor, logits: Tensor, noise: Tensor, temperature: float, table: Table, dim: int
    ) -> Tensor:
        dtype = _dtype(z)
        noisy = logits.to(dtype) + noise.to(dtype)
        kernels, numbers = _kernels(z.is_cuda), _numbers(noisy.argmax(1), table, False, z, dim)
        ctx.save_for_backward(z, noisy, numbers)
        ctx.numbers = kernels.prepared(numbers)  # views of what is saved
        ctx.dtype, ctx.temperature, ctx.table, ctx.dim = logits.dtype, temperature, table, dim
        h: Tensor = kernels.forward(z, ctx.numbers, dim)
        return h

    @staticmethod
    @_first_order
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, Tensor, None, None, None, None]:
        z, noisy, _ = ctx.saved_tensors
        kernels = _kernels(z.is_cuda)
        g_z, sums_JN = kernels.backward(g, z, ctx.numbers, ctx.dim)
        # As (K, N), whose rows are long. Neither autocast nor TF32 takes part: the one leaves a product alone that has
        # memory to go to, the other one in float64.
        weights_KJ = _of_sums(ctx.table, kernels, torch.float64 if z.is_cuda else noisy.dtype, z.device)
        g_s_KN = weights_KJ.new_empty(len(weights_KJ), len(noisy))
        g_s_KN = torch.mm(weights_KJ, sums_JN.to(weights_KJ.dtype), out=g_s_KN).to(noisy.dtype)
        y_KN = torch.softmax(torch.div(noisy.t(), ctx.temperature, out=torch.empty_like(g_s_KN)), 0)
        g_noisy_KN = torch._softmax_backward_data(g_s_KN, y_KN, 0, y_KN.dtype)
        g_logits = torch.div(g_noisy_KN.t(), ctx.temperature, out=torch.empty_like(noisy))
        return g_z, g_logits.to(ctx.dtype), None, None, None, None


class _Combine(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, z: Tensor, numbers: Numbers, dim: int, keep_result: bool) -> Tensor:
        h: Tensor = _kernels(z.is_cuda).forward(z, numbers, dim)
        ctx.save_for_backward(h if keep_result else z)
        ctx.numbers, ctx.dim, ctx.keep_result = numbers, dim, keep_result
        return h

    @staticmethod
    @_first_order
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None, None, None]:
        (kept,) = ctx.saved_tensors
        kernels = _kernels(kept.is_cuda)
        backward = kernels.backward_from_result if ctx.keep_result else kernels.backward_from_input
        return backward(g, kept, ctx.numbers, ctx.dim), None, None, None


def _numbers(choice: Tensor, table: Table, fixed: bool, z: Tensor, dim: int) -> Tensor:
    kernels = _kernels(z.is_cuda)
    columns = _columns(table, kernels, fixed, _dtype(z), z.device)
    numbers: Tensor = kernels.numbers(columns, choice, -1 - dim if dim < 0 else z.dim() - 1 - dim)
    return numbers


def _dtype(z: Tensor) -> torch.dtype:
    return torch.float64 if z.dtype == torch.float64 else torch.float32


def _kernels(cuda: bool) -> ModuleType:
    return _triton() or eager if cuda else eager


@cache
def _triton() -> ModuleType | None:
    return importlib.import_module("smx.fused.triton") if importlib.util.find_spec("triton") else None


@made_once
def _columns(table: Table, kernels: ModuleType, fixed: bool, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return each activation's numbers, as the kernels want them."""
    columns: Tensor = kernels.expand(_coefficients(table), fixed=fixed)
    return columns.to(device, dtype)


@made_once
def _of_sums(table: Table, kernels: ModuleType, dtype: torch.dtype, device: torch.device) -> Tensor:
    weights: Tensor = kernels.of_sums(_coefficients(table)).t().contiguous()
    return weights.to(device, dtype)


def _coefficients(table: Table) -> Tensor:
    return torch.tensor(table, dtype=torch.float64, device="cpu").t()
