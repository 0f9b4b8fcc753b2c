"""The epochs of one phase: train, evaluate, record, until the phase is over."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Sequence

import torch
from torch import nn

from smx.errors import SmxError
from smx.layers import selectives
from smx.training.checkpoint import Checkpoint
from smx.training.config import AUTO, TrainConfig
from smx.training.engine import evaluate, seed_for, train_epoch
from smx.training.examples import Examples
from smx.training.metrics import EpochMetrics, choices, median_margin, shares
from smx.training.parallel import ALONE, Ranks
from smx.training.protocol import rules
from smx.training.schedules import lr_scheduler, temperature
from smx.training.settling import settled, stalled
from smx.training.step import Step, adam


def is_over(config: TrainConfig, phase: int, rows: Sequence[EpochMetrics], neurons: int) -> bool:
    """Tell from the rows of a phase whether it ends: after its last epoch, by `patience`, or by the rule of `auto`."""
    return (
        len(rows) >= config.phases[phase]
        or stalled(rows, config.patience)
        or (phase == 1 and config.phase1_epochs == AUTO and settled(rows, neurons, config))
    )


def train_phase(
    model: nn.Module,
    state: Checkpoint,
    train: Examples,
    validation: Examples,
    record: Callable[[Checkpoint], None],
    ranks: Ranks = ALONE,
) -> None:
    """Train a model, which has the weights of `state`, from there to the phase's end; update and record every epoch.

    Raises:
        SmxError: the loss is no longer finite.
    """
    config, phase = state.config, state.phase
    optimizer = adam(model, config, state.optimizer)
    step = Step(model, optimizer, config, phase, ranks)
    if state.scaler:
        step.scaler.load_state_dict(state.scaler)
    earlier = later = 0  # epochs of other phases that the schedule spans
    if config.lr_span == "run":
        earlier = sum(row.phase < phase for row in state.rows)
        later = sum(epochs for other, epochs in config.phases.items() if other > phase)
    scheduler = lr_scheduler(
        optimizer,
        config,
        epochs=earlier + config.phases[phase] + later,
        steps_per_epoch=math.ceil(len(train) / config.batch_size),
        done=earlier + state.epoch,
    )
    neurons = sum(len(choice) for choice in choices(model).values())
    while not ranks.of_main(is_over(config, phase, [row for row in state.rows if row.phase == phase], neurons)):
        started = time.perf_counter()
        epoch = state.epoch + 1
        if phase == 1 and set_temperature(model, temperature(config, epoch)):
            step.forget_graph()
        step.hold(config.hold and epoch == 1)
        torch.manual_seed(seed_for(config.seed, phase, epoch))
        before = choices(model)
        rate = float(scheduler.get_last_lr()[0])
        train_loss, train_accuracy = train_epoch(step, scheduler, train, config.batch_size, ranks)
        ranks.average_buffers(model)
        loss, accuracy = evaluate(model, validation, config, phase, ranks=ranks)
        sampled: float | None = None
        if phase == 1:
            sampled_loss, sampled = evaluate(model, validation, config, phase, sampled=True, ranks=ranks)
            loss = sampled_loss if rules(config).noisy_evaluation else loss
        for what, value in {"training": train_loss, "validation": loss}.items():
            if not math.isfinite(value):
                raise SmxError(
                    f"the {what} loss became {value} in epoch {epoch} of phase {phase}; try a lower --lr, and defaults"
                    " for what else you set"
                )
        now = choices(model)
        row = EpochMetrics(
            phase=phase,
            epoch=epoch,
            train_loss=train_loss,
            train_accuracy=train_accuracy,
            validation_loss=loss,
            validation_accuracy=accuracy,
            validation_accuracy_sampled=sampled,
            changed=sum(int((now[layer] != before[layer]).sum()) for layer in now),
            margin=median_margin(model),
            temperature=temperature(config, epoch) if phase == 1 else None,
            learning_rate=rate,
            seconds=time.perf_counter() - started,
            shares=shares(now, config.candidates),
        )
        state.epoch = epoch
        state.rows.append(row)
        state.model, state.optimizer = model.state_dict(), optimizer.state_dict()
        state.scaler = step.scaler.state_dict()
        if loss < state.best_loss:
            state.best_loss = loss
            state.best_model = copy.deepcopy(state.model)
        record(state)


def set_temperature(model: nn.Module, value: float) -> bool:
    """Set the temperature of every `Selective`; return whether that is a change."""
    layers = selectives(model)
    changed = any(layer.temperature != value for layer in layers)
    for layer in layers:
        layer.temperature = value
    return changed
