"""What a run of the network will cost, as a term of phase 1's loss: neurons can choose with the price in mind."""

from __future__ import annotations

from collections.abc import Mapping

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
        prices: of a neuron with each activation, by name; `smx.load_prices().relative(...)` gives multiples of ReLU's.

    Raises:
        ValueError: the network has no `Selective`, or an activation of a pool has no price.
    """

    def __init__(self, module: nn.Module, prices: Mapping[str, float]) -> None:
        self.layers = selectives(module)
        if not self.layers:
            raise ValueError(f"{type(module).__name__} has no Selective layer that could choose by price")
        neurons = sum(layer.num_features for layer in self.layers)
        self._of_size: dict[int, list[tuple[Selective, Tensor]]] = {}
        for layer in self.layers:
            names = [activation.name for activation in layer.pool]
            if missing := [name for name in names if name not in prices]:
                raise ValueError(f"{missing[0]} has no price; known are {', '.join(prices)}")
            own = torch.tensor([prices[name] for name in names], dtype=torch.float32, device=layer.logits.device)
            shares = torch.full((len(layer.logits), 1), layer.per / neurons, device=own.device)
            shares[-1] -= (
                len(layer.logits) * layer.per - layer.num_features
            ) / neurons  # the last decision may be smaller
            self._of_size.setdefault(len(names), []).append((layer, own * shares))

    def __call__(self) -> Tensor:
        """Return the price, a scalar in float32."""
        costs = []
        for (
            layers
        ) in self._of_size.values():  # all layers of a size of pool together: a few operators, not a few a layer
            logits = torch.cat([layer.preferences.float() for layer, _ in layers])
            costs.append((torch.softmax(logits, 1) * torch.cat([prices for _, prices in layers])).sum())
        return torch.stack(costs).sum()
