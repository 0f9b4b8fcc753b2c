"""Decisions: each is the choice of one or more neurons side by side, `per` of them; the last one may have fewer.

Shapes: N neurons, D = ceil(N / per) decisions.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


def of_neurons(values: Tensor, per: int, neurons: int) -> Tensor:
    """Return for each neuron the value of its decision: (D, *) -> (N, *); a view where there is one decision."""
    if len(values) == 1:
        return values.expand(neurons, *values.shape[1:])
    return values if per == 1 else values.repeat_interleave(per, 0)[:neurons]


def summed(values_KN: Tensor, per: int) -> Tensor:
    """Return the sums over the neurons of each decision: (K, N) -> (K, D)."""
    if per == 1:
        return values_KN
    size, neurons = values_KN.shape
    return nn.functional.pad(values_KN, (0, -neurons % per)).reshape(size, -1, per).sum(2)


def only(choice_N: Tensor) -> int | None:
    """Return the choice of all neurons if it is one decision's, as `of_neurons` gives it.

    None where it is not, and where its value is not at hand: on a GPU, and while PyTorch traces.
    """
    at_hand = type(choice_N) is Tensor and choice_N.device.type == "cpu" and not torch.compiler.is_compiling()
    return int(choice_N[0]) if at_hand and len(choice_N) and choice_N.stride(0) == 0 else None
