"""Groups of parameters for an optimiser: logits learn at a rate of their own."""

from __future__ import annotations

from typing import Any

from torch import nn

from smx.layers import selectives
from smx.paper import MATCHED, PAPER

LOGITS_LR = {PAPER: 1.0, MATCHED: 10.0}
"""The learning rate of the logits by selection, in multiples of that of the weights."""


def parameter_groups(module: nn.Module, *, lr: float, logits_lr: float | None = None) -> list[dict[str, Any]]:
    """Return the parameters of a network, each once, as groups for any optimiser of PyTorch, which have one rate each.

    `torch.optim.AdamW(smx.parameter_groups(net, lr=1e-3, logits_lr=1e-2))`. The weights come first, then the logits of
    `smx.Selective` layers; they are one group where the rates are the same.

    Args:
        module: any network.
        lr: learning rate of the weights.
        logits_lr: learning rate of the logits; None: `lr` times what `LOGITS_LR` has for a layer's selection.
    """
    rates = {
        id(parameter): lr * LOGITS_LR[layer.selection] if logits_lr is None else logits_lr
        for layer in selectives(module)
        for parameter in layer.parameters()
    }
    groups: dict[float, list[nn.Parameter]] = {lr: []}
    for parameter in module.parameters():
        groups.setdefault(rates.get(id(parameter), lr), []).append(parameter)
    return [{"params": parameters, "lr": rate} for rate, parameters in groups.items() if parameters]
