"""The basis with its gradients of first order: `selective` for phase 1, `combine` for a fixed choice.

README.md here explains them; a backend (`smx.fused.backend`) computes them.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from smx.fused.backend import Numbers, backend_for
from smx.fused.basis import Table, arithmetic_dtype


def selective(z: Tensor, logits: Tensor, noise: Tensor, temperature: float, table: Table, dim: int = 1) -> Tensor:
    """Apply to each neuron the activation of its largest noisy logit, with the gradient of eq. 4.

    Args:
        z: (B, N, *), or N on another axis `dim`; any floating dtype.
        logits: (N, K).
        noise: Gumbel noise (N, K).
        temperature: tau of eq. 2.
        table: the coefficients of the pool.
        dim: the axis of the neurons.

    Returns:
        h, of z's shape, dtype and layout in memory. z, the noisy logits and a few numbers a neuron are kept for the
        backward pass.
    """
    if z.dim() == 1:
        return selective(z[None], logits, noise, temperature, table)[0]
    h: Tensor = _Selective.apply(z, logits, noise, temperature, table, dim)  # type: ignore[no-untyped-call]
    return h


def prepare(z: Tensor, choice: Tensor, table: Table, dim: int = 1) -> Numbers:
    """Return the numbers of a choice int64 (N,) for `combine`: for every z of this device, dtype and number of axes."""
    return backend_for(z).numbers(table, choice, z, dim, True)[1]


def combine(z: Tensor, numbers: Numbers, dim: int = 1, keep_result: bool = False) -> Tensor:
    """Apply to each neuron the activation it chose.

    Args:
        z: (B, N, *), or N on another axis `dim`; any floating dtype.
        numbers: of the choice, see `prepare`.
        dim: the axis of the neurons.
        keep_result: keep h for the backward pass, as `nn.ReLU` does. It costs no memory, because the next layer keeps h
            as well, but nothing may write into h. Otherwise z is kept, and h is computed again. Not under
            `torch.compile`.

    Returns:
        h, of z's shape, dtype and layout in memory.
    """
    if z.dim() == 1:
        return combine(z[None], numbers, keep_result=keep_result)[0]
    h: Tensor = _Combine.apply(z, numbers, dim, keep_result)  # type: ignore[no-untyped-call]
    return h


def _first_order(backward: Callable[..., Any]) -> Callable[..., Any]:
    """Refuse second derivatives, as `once_differentiable` does, at no cost in an ordinary backward pass."""
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
        dtype, backend = arithmetic_dtype(z), backend_for(z)
        noisy_NK = logits.to(dtype) + noise.to(dtype)
        saved, numbers = backend.numbers(table, noisy_NK.argmax(1), z, dim, False)
        ctx.save_for_backward(z, noisy_NK, saved)
        ctx.numbers, ctx.backend = numbers, backend
        ctx.dtype, ctx.temperature, ctx.table, ctx.dim = logits.dtype, temperature, table, dim
        return backend.forward(z, numbers, dim)

    @staticmethod
    @_first_order
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, Tensor, None, None, None, None]:
        z, noisy_NK, _ = ctx.saved_tensors
        g_z, sums_JN = ctx.backend.backward(g, z, ctx.numbers, ctx.dim)
        # The gradient of the sample s is the sum of g f_k(z). As (K, N) its rows are long, which makes softmax fast.
        g_s_KN = ctx.backend.sums_of_pool(sums_JN, ctx.table)
        y_KN = torch.softmax(torch.div(noisy_NK.t(), ctx.temperature, out=torch.empty_like(g_s_KN)), 0)
        g_noisy_KN = torch._softmax_backward_data(g_s_KN, y_KN, 0, y_KN.dtype)
        g_logits_NK = torch.div(g_noisy_KN.t(), ctx.temperature, out=torch.empty_like(noisy_NK))
        return g_z, g_logits_NK.to(ctx.dtype), None, None, None, None


class _Combine(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, z: Tensor, numbers: Numbers, dim: int, keep_result: bool) -> Tensor:
        backend = backend_for(z)
        h = backend.forward(z, numbers, dim)
        ctx.save_for_backward(h if keep_result else z)
        ctx.backend, ctx.numbers, ctx.dim, ctx.keep_result = backend, numbers, dim, keep_result
        return h

    @staticmethod
    @_first_order
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None, None, None]:
        (kept,) = ctx.saved_tensors
        return ctx.backend.backward_fixed(g, kept, ctx.numbers, ctx.dim, ctx.keep_result), None, None, None
