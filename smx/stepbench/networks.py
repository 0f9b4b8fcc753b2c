"""The networks whose training steps are compared: fixed activations, both phases, and both as the formulas say it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from smx import functional, paper
from smx.activations import Activation, Pool, get, resolve_pool
from smx.convert import select
from smx.layers import Mixed, Selective
from smx.models import Fixed, mlp
from smx.sorting import sort

PHASE1 = "phase 1"
PHASE1_PLAIN = "phase 1, plain"
PHASE2 = "phase 2"
PHASE2_UNSORTED = "phase 2, unsorted"
PHASE2_PLAIN = "phase 2, plain"

Build = Callable[[], nn.Module]
"""Makes a network anew, in training mode on the CPU, always with the same weights."""


class PlainSelective(Selective):
    """Phase 1 as its formulas are written (eq. 1-6): all activations of the pool, stacked and weighted."""

    def forward(self, z: Tensor) -> Tensor:
        """Apply each neuron's sampled activation, z (B, N) -> (B, N); draw the noise that `Selective` would draw."""
        dtype = torch.promote_types(self.logits.dtype, torch.float32)
        noise = functional.gumbel_noise(self.logits.shape, dtype=dtype, device=self.logits.device)
        return functional.selective_plain(z, self.logits, noise, self.temperature, self.pool, self.dim)


class PlainMixed(nn.Module):
    """Phase 2 as its formula is written (eq. 11): each group by its indices. Arguments as for `Mixed`."""

    def __init__(self, choice: Tensor, pool: Iterable[str | Activation] = paper.PAPER_POOL) -> None:
        super().__init__()
        self.pool: Pool = resolve_pool(pool)
        self.present = [k for k, _ in functional.groups(choice)]
        for k, index in functional.groups(choice):
            self.register_buffer(f"group{k}", index)

    def forward(self, z: Tensor) -> Tensor:
        """Apply to each neuron its activation, z (B, N) -> (B, N)."""
        return functional.grouped_plain(z, list(zip(self.present, self.buffers(), strict=True)), self.pool)


def networks(
    sizes: Sequence[int],
    pool: Iterable[str | Activation] = paper.PAPER_POOL,
    baselines: Sequence[str] = ("relu",),
    *,
    rules: Sequence[str] = (),
    plain: bool = True,
    seed: int = 0,
) -> dict[str, Build]:
    """Return functions that make each network, by name; all are multilayer perceptrons (B, sizes[0]) -> (B, sizes[-1]).

    The networks of phase 1 compute the same function, and so do those of phase 2, whose neurons have the activations
    that the paper reports (see `choices`). All have the same weights; `PHASE2` has them in the order of its neurons.

    Args:
        sizes: inputs, neurons of each hidden layer, outputs.
        pool: names or activations.
        baselines: names of fixed activations.
        rules: by which neurons choose, beside the paper's: each makes a network of phase 1, see `phase1`.
        plain: include the plain formulas.
        seed: of weights and choices.

    Raises:
        ValueError: an activation is unknown, or given twice.
    """
    resolved = resolve_pool(pool)
    chosen = choices(sizes[1:-1], resolved, seed)

    def fixed(name: str) -> Build:
        function = get(name).function
        return partial(build, lambda i: Fixed(function))

    def build(activation: Callable[[int], nn.Module]) -> nn.Sequential:
        torch.manual_seed(seed)
        return mlp(sizes, activation)

    made = {name: fixed(name) for name in baselines}
    made[PHASE1] = partial(build, lambda i: Selective(sizes[i], resolved))
    for rule in rules:
        made[phase1(rule)] = partial(_choosing, partial(build, lambda i: nn.ReLU()), resolved, rule)
    if plain:
        made[PHASE1_PLAIN] = partial(build, lambda i: PlainSelective(sizes[i], resolved))
    made[PHASE2] = lambda: sort(made[PHASE2_UNSORTED]())
    made[PHASE2_UNSORTED] = partial(build, lambda i: Mixed(chosen[i - 1], resolved))
    if plain:
        made[PHASE2_PLAIN] = partial(build, lambda i: PlainMixed(chosen[i - 1], resolved))
    return made


def _choosing(build: Build, pool: Pool, rule: str) -> nn.Module:
    return select(build(), pool, selection=rule)


def phase1(rule: str) -> str:
    """Return the name of the network of phase 1 whose neurons choose by a rule."""
    return f"{PHASE1}, {rule}"


def choices(hidden: Sequence[int], pool: Pool, seed: int = 0) -> list[Tensor]:
    """Draw each hidden layer's choices, int64 (N,), with the paper's frequencies, see `smx.paper.shares`.

    An activation that is not in the paper is as frequent as one of the paper's on average.
    """
    random = torch.Generator().manual_seed(seed)
    drawn = []
    for i, neurons in enumerate(hidden):
        known = paper.shares(i / max(1, len(hidden) - 1))
        shares = torch.tensor([known.get(activation.name, 1 / len(known)) for activation in pool])
        drawn.append(torch.multinomial(shares, neurons, replacement=True, generator=random))
    return drawn
