"""What a run of the network will cost, as a term of phase 1's loss: neurons can choose with the price in mind."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from smx.layers import Selective, selectives


class ExpectedPrice:
    """The price of a network's activations that its logits expect, as a function that training adds to the loss.

    A neuron with the logits a costs sum_k softmax(a)[k] price[k]; the network costs the mean over all neurons of its
    `Selective` layers. So it lies between the smallest and the largest price. Its gradient reaches the logits alone.
    The expected cost as a term of the loss is that of FBNet (arXiv 1812.03443) and ProxylessNAS (arXiv 1812.00332).

    Args:
        module: a network of phase 1.
        prices: of a neuron with each activation, by name or by itself, for example in multiples of ReLU's:
            `dict(zip(pool, smx.load_prices().relative(pool)))`.

    Raises:
        ValueError: the network has no `Selective`, or an activation of a pool has no price, or no finite one from 0 on.
    """

    def __init__(self, module: nn.Module, prices: Mapping[Any, float]) -> None:
        self.layers = selectives(module)
        if not self.layers:
            raise ValueError(f"{type(module).__name__} has no Selective layer that could choose by price")
        if not isinstance(prices, Mapping):
            raise ValueError(
                "prices must have a number for each activation's name, as"
                f" dict(zip(pool, smx.load_prices().relative(pool))), got {type(prices).__name__}"
            )
        prices = {getattr(name, "name", name): price for name, price in prices.items()}
        neurons = sum(layer.num_features for layer in self.layers)
        by_size: dict[int, list[tuple[Selective, Tensor]]] = {}
        for layer in self.layers:
            names = [activation.name for activation in layer.pool]
            if missing := [name for name in names if name not in prices]:
                raise ValueError(f"{missing[0]} has no price; known are {', '.join(prices)}")
            if bad := [name for name in names if not 0 <= prices[name] < math.inf]:
                raise ValueError(f"a price must be a number from 0 on, got {prices[bad[0]]} for {bad[0]}")
            device, decisions = layer.logits.device, len(layer.logits)
            shares = torch.full((decisions, 1), layer.per / neurons, device=device)
            shares[-1] -= (decisions * layer.per - layer.num_features) / neurons  # the last decision may be smaller
            own = torch.tensor([prices[name] for name in names], dtype=torch.float32, device=device)
            by_size.setdefault(len(names), []).append((layer, shares * own))
        # Layers with pools of one size are priced together: some operators for all, instead of as many for each.
        self._together = [
            ([layer for layer, _ in rows], torch.cat([price for _, price in rows])) for rows in by_size.values()
        ]

    def __call__(self) -> Tensor:
        """Return the price, a scalar in float32."""
        costs = [
            (torch.softmax(torch.cat([layer.preferences.float() for layer in layers]), 1) * price_DK).sum()
            for layers, price_DK in self._together
        ]
        return torch.stack(costs).sum()
