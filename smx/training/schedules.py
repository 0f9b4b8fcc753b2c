"""How the learning rate and the temperature change during a phase.

They are functions of the position in the phase, without state, so that a resumed run and all ranks of a distributed run
have the same values.
"""

from __future__ import annotations

import math
from functools import partial

import torch
from torch.optim.lr_scheduler import LambdaLR

from smx.training.config import TrainConfig

STEP_FACTOR = 0.1
"""The schedule `step` multiplies the learning rate by it after 1/2 and after 3/4 of a phase (He et al., 2016)."""


def lr_factor(step: int, *, schedule: str, steps: int, warmup: int = 0) -> float:
    """Return the factor of the learning rate in a step of a phase of `steps` steps.

    In the first `warmup` steps the factor rises linearly to 1. After them it depends on t in [0, 1), the share of the
    remaining steps that is done:

        constant    1
        linear      1 - t
        cosine      (1 + cos(pi t)) / 2
        step        1, 0.1 from t = 1/2 on, 0.01 from t = 3/4 on

    Steps are counted from 0.
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
    """Make the scheduler of a span of `epochs` epochs, of which `done` are done; its `step` is called every step.

    The optimiser is one that `smx.training.step.adam` has just made.
    """
    steps, warmup = epochs * steps_per_epoch, config.lr_warmup * steps_per_epoch
    factor = partial(lr_factor, schedule=config.lr_schedule, steps=steps, warmup=warmup)
    return LambdaLR(optimizer, factor, last_epoch=done * steps_per_epoch - 1)


def temperature(config: TrainConfig, epoch: int) -> float:
    """Return the temperature of an epoch of phase 1, counted from 1.

    From `temperature` in the first epoch to `temperature_end` in the last one, neighbouring epochs have the same
    difference (`linear`) or the same ratio (`exponential`). With `phase1_epochs = "auto"` the last epoch is number
    `max_phase1_epochs`.
    """
    start, end, epochs = config.temperature, config.temperature_end, config.phases[1]
    if config.temperature_schedule == "constant":
        return start
    t = (epoch - 1) / max(epochs - 1, 1)
    if config.temperature_schedule == "linear":
        return start + (end - start) * t
    return float(start * (end / start) ** t)
