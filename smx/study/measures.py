"""What a finished network is like, beyond its accuracy: calibration, size, and weights between activations."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from smx.architecture import MLP

if TYPE_CHECKING:
    from smx.modelfile import SavedModel
    from smx.training.examples import Examples

BINS = 15
"""Of the calibration error, as usual since Guo et al., 2017 (arXiv 1706.04599)."""


def measures(model: SavedModel, test: Examples | None) -> dict[str, Any]:
    """Return measures of a finished network as plain values.

    Returns:
        `parameters`, `neurons`: how many; `classes`: of the data; `connections`: see `connections`; and with test
        examples `test_loss`: the cross-entropy on them; `calibration_error`: see `calibration_error`.
    """
    return {
        **(_on_test(model, test) if test else {}),
        "parameters": sum(weight.numel() for weight in model.weights.values()),
        "neurons": sum(len(choice) for choice in model.choices.values()),
        "classes": len(model.data["class_names"]),
        "connections": connections(model),
    }


def _on_test(model: SavedModel, test: Examples) -> dict[str, float]:
    logits, y = _logits(model, test), test.y.cpu()
    return {"test_loss": F.cross_entropy(logits, y).item(), "calibration_error": calibration_error(logits, y)}


@torch.no_grad()
def _logits(model: SavedModel, test: Examples, batch: int = 1024) -> Tensor:
    network = model.build()
    return torch.cat([network(x.cpu()) for x in torch.split(test.x, batch)])


def calibration_error(logits: Tensor, y: Tensor) -> float:
    """Return the expected calibration error of logits (B, C) for labels (B,).

    The examples are put into `BINS` bins of equal width by the probability of the class that is predicted; the error is
    the mean over the examples of |accuracy - mean probability| of their bin.
    """
    probability, predicted = logits.double().softmax(1).max(1)
    right = (predicted == y).double()
    bins = (probability * BINS).long().clamp(max=BINS - 1)
    gaps = torch.zeros(BINS, dtype=torch.float64).index_add_(0, bins, right - probability)
    return (gaps.abs().sum() / len(y)).item()


def connections(model: SavedModel) -> dict[str, list[list[float]]] | None:
    """Return the weights between hidden neurons by the activation of the sending and of the receiving one (figure 8).

    Returns:
        `sum` and `count`, (K, K): for each activation of the pool that sends, and each that receives, the sum of the
        weights over all hidden layers, and their number. None for a network that is no mlp.
    """
    if model.architecture.kind != MLP or len(model.pool) == 1:
        return None
    size = len(model.pool)
    total, count = torch.zeros(size, size, dtype=torch.float64), torch.zeros(size, size, dtype=torch.float64)
    for sender, receiver in pairwise(model.choices):
        weight = model.weights[receiver.removesuffix("activation") + "linear.weight"].cpu().double()
        sends = F.one_hot(model.choices[sender].cpu(), size).double()
        receives = F.one_hot(model.choices[receiver].cpu(), size).double()
        total += sends.T @ weight.T @ receives
        count += sends.sum(0)[:, None] * receives.sum(0)
    return {"sum": total.tolist(), "count": count.tolist()}
