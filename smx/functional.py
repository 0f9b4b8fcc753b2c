"""The paper's equations as pure functions.

`selective` and `mixed` take a fast path (`smx.fused`) where all activations are our own; `selective_plain` and
`grouped_plain` are the equations as they are written, for any activation, and what the fast paths are held against.

Shapes: B examples, N neurons (channels), K activations in the pool; `*` is anything, such as (H, W).
The neurons stand on axis `dim` of z, by default axis 1 of (B, N, *).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from smx.activations import Activation
from smx.fused import basis, operators

Group = tuple[int, Tensor]
"""An activation's index in the pool, and the int64 indices of the neurons that chose it."""


def gumbel_noise(
    shape: Sequence[int],
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str | None = None,
    generator: torch.Generator | None = None,
    eps: float = 1e-20,
) -> Tensor:
    """Draw Gumbel noise g = -log(-log(u + eps) + eps) with u ~ Uniform(0, 1) (eq. 1)."""
    u = torch.rand(tuple(shape), dtype=dtype, device=device, generator=generator)
    return u.add_(eps).log_().neg_().add_(eps).log_().neg_()


def straight_through(logits_NK: Tensor, noise_NK: Tensor, temperature: float) -> Tensor:
    """Sample s (N, K): one-hot in value, with the gradient of the relaxed sample (eq. 2-4).

    y = softmax((logits + noise) / temperature) and s = onehot(argmax y) + y - stopgrad(y). The difference is
    taken first, so that s is exactly one-hot. Half-precision logits are relaxed in float32.
    """
    dtype = torch.promote_types(logits_NK.dtype, torch.float32)
    noisy_NK = logits_NK.to(dtype) + noise_NK.to(dtype)
    y_NK = torch.softmax(noisy_NK / temperature, dim=-1)
    # argmax y; the softmax may round two of its values to a tie that its arguments don't have.
    onehot_NK = torch.zeros_like(y_NK).scatter_(-1, noisy_NK.argmax(-1, keepdim=True), 1.0)
    return onehot_NK + (y_NK - y_NK.detach())


def selective(
    z: Tensor,
    logits: Tensor,
    noise: Tensor,
    temperature: float,
    pool: Sequence[Activation],
    dim: int = 1,
) -> Tensor:
    """Apply to each neuron the activation that its noisy logits select (eq. 1-6).

    h = sum_k s[k] f_k(z); in value h = f_k*(z) with k* = argmax(logits + noise). The gradient reaches z through
    f_k* alone, and the logits through the relaxed sample and every f_k(z). A pool of ReLU, Leaky ReLU, ELU, SELU,
    Sigmoid, Tanh and the identity keeps z and a few numbers a neuron for its backward pass, and differentiates once.

    Args:
        z: pre-activations (B, N, *), any floating dtype.
        logits: preferences (N, K).
        noise: Gumbel noise (N, K), or zeros for none; one draw serves all examples.
        temperature: tau of eq. 2, positive.
        pool: K activations, finite for every z: one that overflows spoils the neurons that did not choose it, too.
        dim: the axis of z on which the N neurons stand.

    Returns:
        h, of z's shape and dtype.
    """
    table = basis.table_of(pool)
    if table is None:
        return selective_plain(z, logits, noise, temperature, pool, dim)
    return operators.selective(z, logits, noise, temperature, table, dim)


def selective_plain(
    z: Tensor,
    logits: Tensor,
    noise: Tensor,
    temperature: float,
    pool: Sequence[Activation],
    dim: int = 1,
) -> Tensor:
    """Compute `selective` as it is written: all K activations of all neurons, stacked, weighted and summed (eq. 5)."""
    s_NK = straight_through(logits, noise, temperature).to(z.dtype)
    values = torch.stack([activation.function(z) for activation in pool])
    along_neurons = [1] * (z.dim() + 1)
    along_neurons[0] = len(pool)
    along_neurons[1 + dim % z.dim()] = z.shape[dim]
    return (values * s_NK.t().reshape(along_neurons)).sum(0)


def groups(choice: Tensor) -> tuple[Group, ...]:
    """Group the neurons that share an activation (eq. 9): for each k that occurs in `choice` (N,), its neurons."""
    return tuple((int(k), (choice == k).nonzero().flatten()) for k in torch.unique(choice))


def grouped_plain(z: Tensor, groups: Sequence[Group], pool: Sequence[Activation], dim: int = 1) -> Tensor:
    """Apply to each group its activation, as it is written (eq. 11): h[G_k] = f_k(z[G_k])."""
    if len(groups) == 1:
        return pool[groups[0][0]].function(z)
    h = torch.empty_like(z)
    for k, index in groups:
        h = h.index_copy_(dim, index, pool[k].function(z.index_select(dim, index)))
    return h


def mixed(z: Tensor, choice: Tensor, pool: Sequence[Activation], dim: int = 1) -> Tensor:
    """Apply to each neuron the activation it chose (eq. 11), whatever their order and without waiting for a GPU.

    The layer `smx.Mixed` knows its choice beforehand, and is faster.

    Args:
        z: pre-activations (B, N, *), any floating dtype.
        choice: int64 (N,), indices into the pool.
        pool: K activations.
        dim: the axis of z on which the N neurons stand.

    Returns:
        h, of z's shape and dtype.
    """
    table = basis.table_of(pool)
    if table is None:
        along_neurons = choice.reshape(-1, *[1] * (z.dim() - 1 - dim % z.dim()))
        h = pool[0].function(z)
        for k, activation in enumerate(pool[1:], 1):
            h = torch.where(along_neurons == k, activation.function(z), h)
        return h
    return operators.combine(z, choice, table, dim)
