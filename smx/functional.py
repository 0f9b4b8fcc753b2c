"""The paper's equations as pure functions.

`selective` and `mixed` take a fast path (smx/fused/README.md) if the pool allows it. `selective_plain` and
`grouped_plain` are the equations as they are written, for any activation; the tests compare the fast paths with them.

Shapes: B examples, N neurons (channels), K activations in the pool; `*` is anything, such as (H, W). The neurons are on
axis `dim` of z, by default axis 1 of (B, N, *). A pool is a sequence of activations or of their names.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from smx.activations import Activation, resolve_pool
from smx.fused import basis, operators
from smx.fused.decisions import only
from smx.fused.matching import moments as fused_moments

LEAST_DEVIATION = 0.05
"""A deviation below it counts as this one when candidates are matched, so that no neuron's noise is made large."""

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

    y = softmax((logits + noise) / temperature) and s = onehot(argmax y) + (y - stopgrad(y)); the difference comes
    first, so that s is exactly one-hot. Half-precision logits are computed in float32.
    """
    dtype = torch.promote_types(logits_NK.dtype, torch.float32)
    noisy_NK = logits_NK + noise_NK.to(dtype)
    y_NK = torch.softmax(noisy_NK / temperature, dim=-1)
    # Not argmax y: the softmax may round two values to a tie.
    onehot_NK = torch.zeros_like(y_NK).scatter_(-1, noisy_NK.argmax(-1, keepdim=True), 1.0)
    return onehot_NK + (y_NK - y_NK.detach())


def moments(z: Tensor, pool: Iterable[str | Activation], dim: int = 1) -> Tensor:
    """Return mean and variance of every candidate, which `matching` takes, without a gradient.

    Args:
        z: pre-activations (B, N, *), any floating dtype, not empty.
        pool: K activations or names.
        dim: the axis of the neurons.

    Returns:
        (2, 1 + K, N), for ReLU(z) and every f_k(z), over all axes but the neurons'; float64 if z is, otherwise float32.
    """
    pool = resolve_pool(pool)
    table = basis.table_of(pool)
    z, dim = (z.detach(), dim) if z.dim() > 1 else (z.detach()[None], 1)
    return moments_plain(z, pool, dim) if table is None else fused_moments(z, table, dim)


def moments_plain(z: Tensor, pool: Iterable[str | Activation], dim: int = 1) -> Tensor:
    """Compute `moments` as it is written, for any activations."""
    z = z.detach().to(basis.arithmetic_dtype(z))
    others = [1 + axis for axis in range(z.dim()) if axis != dim % z.dim()]
    values = torch.stack([torch.relu(z), *(activation.function(z) for activation in resolve_pool(pool))])
    variances, means = torch.var_mean(values, others, correction=0)
    return torch.stack([means, variances])


def matching(moments: Tensor) -> Tensor:
    """Return the scales c and the shifts e that give every candidate the mean and the deviation of ReLU.

    f^_k(z) = c_k f_k(z) + e_k with c_k = deviation of ReLU(z) / deviation of f_k(z) and
    e_k = mean of ReLU(z) - c_k mean of f_k(z), for each neuron. A deviation is at least `LEAST_DEVIATION`.

    Args:
        moments: (2, 1 + K, N), see `moments`.

    Returns:
        c and e, (2, K, N).
    """
    means, variances = moments
    deviations = variances.clamp_min(LEAST_DEVIATION**2).sqrt_()
    matched = torch.empty_like(moments[:, 1:])
    scale, shift = matched
    torch.div(deviations[:1], deviations[1:], out=scale)
    torch.addcmul(means[:1], scale, means[1:], value=-1, out=shift)
    return matched


def selective(
    z: Tensor,
    logits: Tensor,
    noise: Tensor,
    temperature: float,
    pool: Iterable[str | Activation],
    dim: int = 1,
    matching: Tensor | None = None,
) -> Tensor:
    """Apply to each neuron the activation that its noisy logits select (eq. 1-6).

    h = sum_k s[k] f_k(z); in value h = f_k*(z) with k* = argmax(logits + noise). The gradient reaches z through
    f_k* alone, and the logits through the relaxed sample and every f_k(z).

    Args:
        z: pre-activations (B, N, *), any floating dtype.
        logits: preferences (N, K).
        noise: Gumbel noise (N, K), or zeros for none; one draw serves all examples.
        temperature: tau of eq. 2, positive.
        pool: K activations or names. Each must be finite for every z, because an overflow makes all neurons NaN.
        dim: the axis of the neurons.
        matching: c and e, (2, K, N), constants; then c_k f_k(z) + e_k stands for f_k(z) above. See `matching`.

    Returns:
        h, of z's shape and dtype.
    """
    pool = resolve_pool(pool)
    table = basis.table_of(pool)
    if table is None:
        return selective_plain(z, logits, noise, temperature, pool, dim, matching)
    return operators.selective(z, logits, noise, temperature, table, dim, matching)


def selective_plain(
    z: Tensor,
    logits: Tensor,
    noise: Tensor,
    temperature: float,
    pool: Iterable[str | Activation],
    dim: int = 1,
    matching: Tensor | None = None,
) -> Tensor:
    """Compute `selective` as it is written: all K activations of all neurons, stacked, weighted and summed (eq. 5)."""
    pool = resolve_pool(pool)
    s_NK = straight_through(logits, noise, temperature).to(z.dtype)
    values = torch.stack([activation.function(z) for activation in pool])
    along_neurons = [1] * (z.dim() + 1)
    along_neurons[0] = len(pool)
    along_neurons[1 + dim % z.dim()] = z.shape[dim]
    if matching is not None:
        scale, shift = (x.to(z.dtype).reshape(along_neurons) for x in matching)
        values = values * scale + shift
    return (values * s_NK.t().reshape(along_neurons)).sum(0)


def rescaled(h: Tensor, affine: Tensor, dim: int = 1) -> Tensor:
    """Return scale h + shift, in h's dtype, for the numbers (2, N) of `affine`; h (B, N, *), or N on the axis `dim`."""
    scale, shift = affine.to(h.dtype).reshape(2, -1, *[1] * (h.dim() - 1 - dim % h.dim()))
    return torch.addcmul(shift, h, scale)


def groups(choice: Tensor) -> tuple[Group, ...]:
    """Group the neurons that share an activation (eq. 9): for each k that occurs in `choice` (N,), its neurons."""
    return tuple((int(k), (choice == k).nonzero().flatten()) for k in torch.unique(choice))


def grouped_plain(z: Tensor, groups: Sequence[Group], pool: Iterable[str | Activation], dim: int = 1) -> Tensor:
    """Apply to each group its activation, as it is written (eq. 11): h[G_k] = f_k(z[G_k])."""
    pool = resolve_pool(pool)
    if len(groups) == 1:
        return pool[groups[0][0]].function(z)
    h = torch.empty_like(z)
    for k, index in groups:
        h = h.index_copy_(dim, index, pool[k].function(z.index_select(dim, index)))
    return h


def mixed(z: Tensor, choice: Tensor, pool: Iterable[str | Activation], dim: int = 1) -> Tensor:
    """Apply to each neuron the activation it chose (eq. 11), in any order and without a synchronisation with a GPU.

    The layer `smx.Mixed` is faster, because its choice is fixed. `choice` is int64 (N,), indices into the pool; the
    other arguments and the result are those of `selective`.
    """
    pool = resolve_pool(pool)
    table = basis.table_of(pool)
    if table is None:
        return mixed_plain(z, choice, pool, dim)
    return operators.combine(z, operators.prepare(z, choice, table, dim), dim)


def mixed_plain(z: Tensor, choice: Tensor, pool: Iterable[str | Activation], dim: int = 1) -> Tensor:
    """Compute `mixed` by every activation's own function, so that each neuron has its values to the bit."""
    pool = resolve_pool(pool)
    if (same := only(choice)) is not None:
        h = pool[same].function(z)
        return h.clone() if h is z or h.requires_grad else h  # what follows may write into it
    along_neurons = choice.reshape(-1, *[1] * (z.dim() - 1 - dim % z.dim()))
    h = pool[0].function(z)
    for k, activation in enumerate(pool[1:], 1):
        h = torch.where(along_neurons == k, activation.function(z), h)
    return h
