"""The basis with its gradients of first order: `selective` for phase 1, `combine` for a fixed choice.

README.md here explains them; a backend computes them: `eager`, `triton` or `traced`.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from functools import cache, wraps
from typing import Any, Protocol, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from smx.fused import decisions, eager, traced
from smx.fused.basis import Table, arithmetic_dtype

Numbers = Any
"""The numbers of each neuron's activation, in the form that a backend takes."""


class Backend(Protocol):
    """What a backend, a module, computes: h = sum over j of c[j] b_j(z), for c = C[:, choice], and its gradients.

    Shapes: z, h, g and g_z are (B, N, *), or have N on another axis `dim`, and one floating dtype. They may have any
    layout in memory, and results have that of z. N neurons, K activations, J sums a neuron, as the backend has them.
    """

    def numbers(self, table: Table, choice_N: Tensor, z: Tensor, dim: int, fixed: bool, /) -> tuple[Tensor, Numbers]:
        """Look up the numbers of each neuron's activation, for `backward_fixed` or for `backward`.

        Of z only device, dtype and number of axes count. Returned are all numbers as one tensor, and in the form that
        the other functions take, which may be views of it.
        """

    def forward(self, z: Tensor, numbers: Numbers, dim: int, /) -> Tensor:
        """Return h."""

    def backward(self, g: Tensor, z: Tensor, numbers: Numbers, dim: int, /) -> tuple[Tensor, Tensor]:
        """Return g_z = g dh/dz, and sums over all axes but the neurons', (J, N), for `sums_of_pool`.

        At z = 0 the slope is that of z < 0, as in PyTorch's ReLU, Leaky ReLU, ELU and SELU.
        """

    def rescaled(self, saved: Tensor, numbers: Numbers, affine_2N: Tensor, /) -> tuple[Tensor, Numbers]:
        """Make of what `numbers` returned for f, not fixed, the same for scale f(z) + shift; it may be overwritten."""

    def sum_of_gradient(self, g: Tensor, sums_JN: Tensor, dim: int, /) -> Tensor:
        """Return the sum of g over all axes but the neurons', (N,), which may be one of the sums of `backward`."""

    def sums_of_pool(self, sums_JN: Tensor, table: Table, /) -> Tensor:
        """Return the sums of g f_k(z) for every activation of the pool, (K, N)."""

    def backward_fixed(self, g: Tensor, kept: Tensor, numbers: Numbers, dim: int, keeps_result: bool, /) -> Tensor:
        """Return g_z for a fixed choice, where `kept` is h if `keeps_result`, otherwise z."""


def backend_for(z: Tensor) -> Backend:
    """Return `traced` under `torch.compile`, `triton` on a GPU if Triton is installed, otherwise `eager`."""
    if torch.compiler.is_compiling():
        return traced
    return (_triton() or eager) if z.is_cuda else eager


@cache
def _triton() -> Backend | None:
    if importlib.util.find_spec("triton") is None:
        return None
    return cast(Backend, importlib.import_module("smx.fused.triton"))


def selective(
    z: Tensor,
    logits: Tensor,
    noise: Tensor,
    temperature: float,
    table: Table,
    dim: int = 1,
    matching: Tensor | None = None,
    per: int = 1,
) -> Tensor:
    """Apply to each neuron the activation of its largest noisy logit, with the gradient of eq. 4.

    The arguments are those of `smx.functional.selective`, with the table of the pool; logits and noise (D, K) are those
    of decisions, each of `per` neurons side by side, but for the last one, which may have fewer. The result has z's
    layout in memory. z, the noisy logits and a few numbers a neuron are kept for the backward pass.
    """
    if z.dim() == 1:
        return selective(z[None], logits, noise, temperature, table, 1, matching, per)[0]
    h: Tensor = _Selective.apply(z, logits, noise, temperature, table, dim, matching, per)  # type: ignore[no-untyped-call]
    return h


def of_choice(matching: Tensor, choice_N: Tensor) -> Tensor:
    """Return scale and shift of each neuron's choice, (2, N), of those of all candidates, (2, K, N)."""
    if (same := decisions.only(choice_N)) is not None:
        return matching[:, same]
    return matching.gather(1, choice_N.expand(2, 1, -1))[:, 0]


def prepare(z: Tensor, choice: Tensor, table: Table, dim: int = 1) -> Numbers:
    """Return the numbers of a choice int64 (N,) for `combine`: for every z of this device, dtype and number of axes."""
    return backend_for(z).numbers(table, choice, z, dim, True)[1]


def combine(z: Tensor, numbers: Numbers, dim: int = 1, keep_result: bool = False) -> Tensor:
    """Apply to each neuron the activation it chose.

    Args:
        z: (B, N, *), or N on another axis `dim`; any floating dtype.
        numbers: of the choice, from `prepare`; or under `torch.compile`, for sorted neurons, `traced.Groups`.
        dim: the axis of the neurons.
        keep_result: keep h for the backward pass, as `nn.ReLU` does, not z. It costs no memory, because the next layer
            keeps h as well, but nothing may write into h. Under `torch.compile`, with groups alone.

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
        ctx: Any,
        z: Tensor,
        logits: Tensor,
        noise: Tensor,
        temperature: float,
        table: Table,
        dim: int,
        matching: Tensor | None,
        per: int,
    ) -> Tensor:
        dtype, backend = arithmetic_dtype(z), backend_for(z)
        noisy_DK = logits.to(dtype) + noise.to(dtype)
        choice_N = decisions.of_neurons(noisy_DK.argmax(1), per, z.shape[dim])
        saved, numbers = backend.numbers(table, choice_N, z, dim, False)
        if matching is not None:
            saved, numbers = backend.rescaled(saved, numbers, of_choice(matching, choice_N))
        ctx.save_for_backward(z, noisy_DK, saved, matching)
        ctx.numbers, ctx.backend = numbers, backend
        ctx.dtype, ctx.temperature, ctx.table, ctx.dim, ctx.per = logits.dtype, temperature, table, dim, per
        return backend.forward(z, numbers, dim)

    @staticmethod
    @_first_order
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        z, noisy_DK, _, matching = ctx.saved_tensors
        g_z, sums_JN = ctx.backend.backward(g, z, ctx.numbers, ctx.dim)
        # The gradient of the sample s is the sum of g f_k(z). As (K, N) its rows are long, which makes softmax fast.
        g_s_KN = ctx.backend.sums_of_pool(sums_JN, ctx.table)
        if matching is not None:  # of g (c_k f_k(z) + e_k)
            scale_KN, shift_KN = matching
            g_s_KN = torch.mul(scale_KN, g_s_KN).addcmul_(shift_KN, ctx.backend.sum_of_gradient(g, sums_JN, ctx.dim))
        g_s_KD = decisions.summed(g_s_KN, ctx.per)
        y_KD = torch.softmax(torch.div(noisy_DK.t(), ctx.temperature, out=torch.empty_like(g_s_KD)), 0)
        g_noisy_KD = torch._softmax_backward_data(g_s_KD, y_KD, 0, y_KD.dtype)
        g_logits_DK = torch.div(g_noisy_KD.t(), ctx.temperature, out=torch.empty_like(noisy_DK))
        return g_z, g_logits_DK.to(ctx.dtype), None, None, None, None, None, None


class _Combine(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, z: Tensor, numbers: Numbers, dim: int, keep_result: bool) -> Tensor:
        backend = backend_for(z)
        h = backend.forward(z, numbers, dim)
        ctx.save_for_backward(h if keep_result else z)
        ctx.backend, ctx.numbers, ctx.dim, ctx.keep_result = backend, numbers, dim, keep_result
        # In a compiled graph an operation may write into what is returned, and autograd would not refuse it. Where none
        # does, the compiler makes no copy.
        return h.clone() if keep_result and torch.compiler.is_compiling() else h

    @staticmethod
    @_first_order
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None, None, None]:
        (kept,) = ctx.saved_tensors
        return ctx.backend.backward_fixed(g, kept, ctx.numbers, ctx.dim, ctx.keep_result), None, None, None
