"""Small groups cost a run of the network nearly as much as large ones: their neurons can choose again without them."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Integral, Real

import torch
from torch import Tensor, nn

from smx.layers import Mixed, Selective


@dataclass(frozen=True, kw_only=True)
class Dissolved:
    """What a layer gives up.

    Attributes:
        path: of the layer in the network.
        before, after: how many neurons choose each activation, by name; those that nobody chooses are left out.
        changed: how many neurons have another activation after it.
    """

    path: str
    before: dict[str, int]
    after: dict[str, int]
    changed: int


def dissolve(layer: Selective, min_share: float = 0.0, max_groups: int = 0) -> Tensor:
    """Return the decisions of a layer when small groups are dissolved, each by its largest logit that stays.

    Step by step: while a group has less than `min_share` of the neurons, or there are more than `max_groups` groups,
    the smallest one (of several, the last in the pool) goes, and its neurons choose again among the groups that stay.
    So a group that gains enough neurons in time stays. At least one group is left.

    Args:
        layer: its logits are not changed.
        min_share: of the layer's neurons, between 0 and 1.
        max_groups: 0 is no limit.

    Returns:
        int64 (D,), indices into the pool; without limits `layer.decisions`.

    Raises:
        ValueError: a limit is out of its range.
    """
    if not isinstance(min_share, Real) or not 0 <= min_share <= 1:
        raise ValueError(f"min_share must be a number between 0 and 1, got {min_share!r}")
    if not isinstance(max_groups, Integral) or isinstance(max_groups, bool) or max_groups < 0:
        raise ValueError(f"max_groups must be a whole number, 0 (no limit) or more, got {max_groups!r}")
    logits, decisions, size = layer.preferences.detach(), layer.decisions, len(layer.pool)
    stays = torch.bincount(decisions, minlength=size) > 0
    while (groups := int(stays.sum())) > 1:
        sizes = torch.bincount(layer.of_neurons(decisions), minlength=size).masked_fill(~stays, layer.num_features + 1)
        if sizes.min() >= min_share * layer.num_features and (not max_groups or groups <= max_groups):
            break
        stays[size - 1 - int(sizes.flip(0).argmin())] = False
        decisions = logits.masked_fill(~stays, -torch.inf).argmax(1)
    return decisions


def dissolved(module: nn.Module, min_share: float = 0.0, max_groups: int = 0) -> list[Dissolved]:
    """Return what `smx.commit` with these limits gives up, for each `Selective` in which a neuron changes.

    Raises:
        ValueError: a limit is out of its range.
    """
    found = []
    for path, layer in module.named_modules():
        if isinstance(layer, Selective):
            before, after = layer.choice, layer.of_neurons(dissolve(layer, min_share, max_groups))
            if changed := int((before != after).sum()):
                sizes = [Mixed(choice, layer.pool).group_sizes for choice in (before, after)]
                found.append(Dissolved(path=path, before=sizes[0], after=sizes[1], changed=changed))
    return found
