"""How the learning rate and the temperature move through a phase: functions of the position alone.

So a resumed run, and every rank of a distributed one, finds the same values without any state.
"""

from __future__ import annotations

import math
from functools import partial

import torch
from torch.optim.lr_scheduler import LambdaLR

from smx.training.config import TrainConfig

STEP_FACTOR = 0.1
"""What `step` multiplies the learning rate with after half and after three quarters of a phase (He et al., 2016)."""


def lr_factor(step: int, *, schedule: str, steps: int, warmup: int = 0) -> float:
    """Return what the learning rate is multiplied with in a step of a phase.

    In the first `warmup` steps the factor rises evenly to 1. With t in [0, 1) the share of the other steps that is
    done, it then is 1 (`constant`), 1 - t (`linear`), (1 + cos(pi t)) / 2 (`cosine`), or 1, from t = 1/2 on 0.1, and
    from t = 3/4 on 0.01 (`step`).

    Args:
        step: counted from 0.
        schedule: constant, linear, cosine or step.
        steps: of the whole phase.
        warmup: steps of the rise.
    """
    if step < warmup:
        return (step + 1) / (warmup + 1)
    t = min((step - warmup) / max(steps - warmup, 1), 1.0)
    if schedule == "linear":
        return 1 - t
    if schedule == "cosine":
        return (1 + math.cos(math.pi * t)) / 2
    if schedule == "step":
        return STEP_FACTOR ** ((t >= 0.5) + (t >= 0.75))
    return 1.0


def lr_scheduler(
    optimizer: torch.optim.Optimizer, config: TrainConfig, *, epochs: int, steps_per_epoch: int, done: int
) -> LambdaLR:
    """Make the scheduler of a phase of so many epochs, of which `done` are done; it goes on with every step."""
    factor = partial(
        lr_factor,
        schedule=config.lr_schedule,
        steps=epochs * steps_per_epoch,
        warmup=config.lr_warmup * steps_per_epoch,
    )
    for group in optimizer.param_groups:
        group["initial_lr"] = config.lr
    return LambdaLR(optimizer, factor, last_epoch=done * steps_per_epoch - 1)


def temperature(config: TrainConfig, epoch: int) -> float:
    """Return the temperature of an epoch of phase 1, counted from 1.

    It goes from `temperature` in the first epoch to `temperature_end` in the last one, in even differences (`linear`)
    or ratios (`exponential`); the last one is `max_phase1_epochs` where the run itself decides when to commit.
    """
    start, end, epochs = config.temperature, config.temperature_end, config.phases[1]
    if config.temperature_schedule == "constant":
        return start
    t = (epoch - 1) / max(epochs - 1, 1)
    if config.temperature_schedule == "linear":
        return start + (end - start) * t
    return float(start * (end / start) ** t)
