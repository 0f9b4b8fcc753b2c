"""The two ways to train: `standard` follows the paper's formulas, `author` the author's code behind its figures."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from smx.activations import Pool
from smx.training.config import TrainConfig


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """Where the author's code differs from the paper's formulas; the defaults are the formulas.

    Attributes:
        double_softmax: cross-entropy, which contains a softmax, gets outputs that already went through one.
        phase1_clamp: in phase 1 every activation and the output are clamped to [-c, c]; None for no clamp.
        noisy_evaluation: in phase 1 the validation loss that decides is measured with Gumbel noise.
        warm_start: phase 2 continues with the weights of phase 1; otherwise it starts from fresh ones.
    """

    double_softmax: bool = False
    phase1_clamp: float | None = None
    noisy_evaluation: bool = False
    warm_start: bool = True

    def outputs(self, logits: Tensor, phase: int) -> Tensor:
        """Return the network's outputs (B, C) in a phase, from its logits (B, C)."""
        if phase == 1 and self.phase1_clamp is not None:
            return torch.clamp(logits, -self.phase1_clamp, self.phase1_clamp)
        return logits

    def loss(self, outputs: Tensor, y: Tensor, weights: Tensor | None = None) -> Tensor:
        """Return the mean loss of outputs (B, C) for class indices y (B,), or with weights (B,) the weighted sum."""
        outputs = torch.softmax(outputs, 1) if self.double_softmax else outputs
        if weights is None:
            return F.cross_entropy(outputs, y)
        return (F.cross_entropy(outputs, y, reduction="none") * weights).sum()

    def phase1_pool(self, pool: Pool) -> Pool:
        """Return the pool as phase 1 uses it."""
        clamp = self.phase1_clamp
        return pool if clamp is None else tuple(activation.clamped(clamp) for activation in pool)


STANDARD = Protocol()
AUTHOR = Protocol(double_softmax=True, phase1_clamp=10.0, noisy_evaluation=True, warm_start=False)


def rules(config: TrainConfig) -> Protocol:
    """Return the protocol that the settings name."""
    return {"standard": STANDARD, "author": AUTHOR}[config.protocol]
