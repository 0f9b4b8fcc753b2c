"""Neurons that stand sorted by their activation: each group is a slice, computed straight into its slice of the result.

The gradients come of the result alone, so that nothing is kept for the backward pass that the next layer does not keep
anyway.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from smx.activations import Activation, is_built_in

aten = torch.ops.aten


class InPlace(NamedTuple):
    """An activation that writes into memory that is there.

    Attributes:
        forward: (z, h): writes h = f(z).
        backward: (g, h, g_z): writes g_z = g f'(z), given h = f(z).
    """

    forward: Callable[[Tensor, Tensor], object]
    backward: Callable[[Tensor, Tensor, Tensor], object]


def in_place(activation: Activation) -> InPlace | None:
    """Return how an activation is computed in place, or None if its gradient needs more than its result."""
    return _IN_PLACE.get(activation.name) if is_built_in(activation) else None


def sliced(z: Tensor, sizes: Sequence[int], functions: Sequence[Activation], dim: int) -> Tensor:
    """Apply each function to its slice of the neurons: split, activations, cat.

    Args:
        z: (B, N, *), or N on another axis `dim`.
        sizes: the neurons of each function, N in all.
        functions: an activation for each slice.
        dim: the axis of the neurons.
    """
    ready = [in_place(function) for function in functions]
    if None in ready or torch.compiler.is_compiling():
        parts = torch.split(z, list(sizes), dim)
        return torch.cat([function.function(part) for function, part in zip(functions, parts, strict=True)], dim)
    h: Tensor = _Sliced.apply(z, list(sizes), ready, dim)  # type: ignore[no-untyped-call]
    return h


class _Sliced(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, z: Tensor, sizes: list[int], functions: list[InPlace], dim: int) -> Tensor:
        h = torch.empty_like(z)
        for function, z_part, h_part in zip(
            functions, torch.split(z, sizes, dim), torch.split(h, sizes, dim), strict=True
        ):
            function.forward(z_part, h_part)
        ctx.save_for_backward(h)
        ctx.sizes, ctx.functions, ctx.dim = sizes, functions, dim
        return h

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None, None, None]:
        (h,) = ctx.saved_tensors
        g_z = torch.empty_like(h)
        parts = (torch.split(tensor, ctx.sizes, ctx.dim) for tensor in (g, h, g_z))
        for function, g_part, h_part, g_z_part in zip(ctx.functions, *parts, strict=True):
            function.backward(g_part, h_part, g_z_part)
        return g_z, None, None, None


def _elu(alpha: float, scale: float) -> InPlace:
    return InPlace(
        lambda z, h: aten.elu.out(z, alpha, scale, 1.0, out=h),
        lambda g, h, g_z: aten.elu_backward.grad_input(g, alpha, scale, 1.0, True, h, grad_input=g_z),
    )


_IN_PLACE = {
    "relu": InPlace(
        lambda z, h: torch.clamp_min(z, 0, out=h),
        lambda g, h, g_z: aten.threshold_backward.grad_input(g, h, 0, grad_input=g_z),
    ),
    "sigmoid": InPlace(
        lambda z, h: torch.sigmoid(z, out=h),
        lambda g, h, g_z: aten.sigmoid_backward.grad_input(g, h, grad_input=g_z),
    ),
    "tanh": InPlace(
        lambda z, h: torch.tanh(z, out=h),
        lambda g, h, g_z: aten.tanh_backward.grad_input(g, h, grad_input=g_z),
    ),
    "leaky_relu": InPlace(
        lambda z, h: aten.leaky_relu.out(z, 0.01, out=h),
        lambda g, h, g_z: aten.leaky_relu_backward.grad_input(g, h, 0.01, True, grad_input=g_z),
    ),
    "elu": _elu(1.0, 1.0),
    "selu": _elu(1.6732632423543772848170429916717, 1.0507009873554804934193349852946),
    "identity": InPlace(lambda z, h: h.copy_(z), lambda g, h, g_z: g_z.copy_(g)),
}
