"""Other choices for phase 2 than the learned ones, to find out what learning is worth."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from smx.layers import selectives

LEARNED = "learned"


def _shuffled(choice: Tensor, size: int, generator: torch.Generator) -> Tensor:
    return choice[torch.randperm(len(choice), generator=generator)]


def _random(choice: Tensor, size: int, generator: torch.Generator) -> Tensor:
    return torch.randint(size, choice.shape, generator=generator)


def _majority(choice: Tensor, size: int, generator: torch.Generator) -> Tensor:
    return torch.full_like(choice, int(torch.bincount(choice, minlength=size).argmax()))


CONTROLS: dict[str, Callable[[Tensor, int, torch.Generator], Tensor]] = {
    "shuffled": _shuffled,
    "random": _random,
    "majority": _majority,
}
"""By the name of the control, a layer's other decisions (D,) for its decisions (D,) and the pool's size:

shuffled    the learned ones in a random order: the shares stay, which neuron has which does not
random      each drawn from the pool, all with the same probability
majority    for all neurons the one that most of the layer chose
"""


def replace_choices(network: nn.Module, control: str, seed: int) -> None:
    """Give every `Selective` of a network the choices of a control, in place; those that are `learned` stay."""
    if control == LEARNED:
        return
    generator = torch.Generator().manual_seed(seed)
    for layer in selectives(network):
        layer.choose(CONTROLS[control](layer.decisions.cpu(), len(layer.pool), generator))
