"""One epoch: train on all batches, evaluate. Both phases and the baselines use the same code, on one or more ranks."""

from __future__ import annotations

from contextlib import nullcontext

import numpy as np
import torch
from torch import nn
from torch.optim.lr_scheduler import LRScheduler

from smx.layers import sampling
from smx.training.config import TrainConfig
from smx.training.examples import Examples
from smx.training.parallel import ALONE, Ranks
from smx.training.protocol import rules
from smx.training.step import Step, Tally

EVALUATION_BATCH = 1024


def seed_for(seed: int, *path: int) -> int:
    """Derive an independent seed for a part of a run: its order and noise do not depend on the parts before it."""
    return int(np.random.SeedSequence([seed, *path]).generate_state(1, np.uint64)[0] >> np.uint64(1))


def train_epoch(
    step: Step, scheduler: LRScheduler, examples: Examples, batch_size: int, ranks: Ranks = ALONE
) -> tuple[float, float]:
    """Take one step for each batch, in a random order; return the mean loss and the accuracy over these steps."""
    step.model.train()
    step.tally.reset()
    step.taken = 0
    for batch in torch.split(torch.randperm(len(examples)).to(examples.x.device), batch_size):
        share = ranks.share(batch, examples.device)
        step(*examples.batch(share.indices), share)
        scheduler.step()
    return step.tally.means(len(examples), ranks)


@torch.no_grad()
def evaluate(
    model: nn.Module,
    examples: Examples,
    config: TrainConfig,
    phase: int,
    *,
    sampled: bool = False,
    ranks: Ranks = ALONE,
) -> tuple[float, float]:
    """Return the mean loss and the accuracy in `eval()`, with the choices committed or `sampled`.

    It computes in float32 for every precision of training, because the saved model is float32.
    """
    model.eval()
    protocol = rules(config)
    tally = Tally(examples.device, torch.float64)
    with sampling(model) if sampled else nullcontext():
        for batch in torch.split(torch.arange(len(examples), device=examples.x.device), EVALUATION_BATCH):
            share = ranks.share(batch, examples.device)
            x, y = examples.batch(share.indices)
            outputs = protocol.outputs(model(x), phase)
            tally.add(protocol.loss(outputs, y, share.weights), outputs, y, share)
    return tally.means(len(examples), ranks)
