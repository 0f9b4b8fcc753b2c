"""One epoch: train on all batches, evaluate. The same for both phases and the baselines."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from smx.data import Split
from smx.layers import sampling
from smx.training.config import TrainConfig
from smx.training.protocol import rules

EVALUATION_BATCH = 1024


@dataclass(frozen=True)
class Examples:
    """A split on the training device: x float32 (B, F), y int64 (B,)."""

    x: Tensor
    y: Tensor

    @classmethod
    def of(cls, split: Split, device: str) -> Examples:
        """Copy a split to a device."""
        return cls(torch.from_numpy(split.x).to(device), torch.from_numpy(split.y).to(device))


def seed_for(seed: int, *path: int) -> int:
    """Derive an independent seed, so that every epoch's order and noise depend on nothing that came before it."""
    return int(np.random.SeedSequence([seed, *path]).generate_state(1, np.uint64)[0] >> np.uint64(1))


def train_epoch(
    model: nn.Module, optimizer: torch.optim.Optimizer, examples: Examples, config: TrainConfig, phase: int
) -> tuple[float, float]:
    """Take one step a batch, in a random order; return the mean loss and the accuracy on the way."""
    model.train()
    protocol = rules(config)
    device = examples.x.device
    loss_sum, correct = torch.zeros((), device=device), torch.zeros((), dtype=torch.int64, device=device)
    for batch in torch.split(torch.randperm(len(examples.y)).to(device), config.batch_size):
        y = examples.y[batch]
        outputs = protocol.outputs(model(examples.x[batch]), phase)
        loss = protocol.loss(outputs, y)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(model.parameters(), config.clip_norm)
        optimizer.step()
        loss_sum += loss.detach() * len(y)
        correct += (outputs.detach().argmax(1) == y).sum()
    return loss_sum.item() / len(examples.y), correct.item() / len(examples.y)


@torch.no_grad()
def evaluate(
    model: nn.Module, examples: Examples, config: TrainConfig, phase: int, *, sampled: bool = False
) -> tuple[float, float]:
    """Return the mean loss and the accuracy in `eval()`, with the choices committed or `sampled`."""
    model.eval()
    protocol = rules(config)
    loss_sum, correct = 0.0, 0
    with sampling(model) if sampled else nullcontext():
        for x, y in zip(*(torch.split(part, EVALUATION_BATCH) for part in (examples.x, examples.y)), strict=True):
            outputs = protocol.outputs(model(x), phase)
            loss_sum += protocol.loss(outputs, y).item() * len(y)
            correct += int((outputs.argmax(1) == y).sum())
    return loss_sum / len(examples.y), correct / len(examples.y)
