from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.optim import lr_scheduler as torchs

from smx import data
from smx.errors import InputError
from smx.training.config import LR_SCHEDULES, TrainConfig
from smx.training.metrics import EpochMetrics
from smx.training.run import load_checkpoint, train
from smx.training.schedules import lr_factor, temperature
from smx.training.settling import settled, stalled
from tests.smx.runs import SMALL, Stopped, stop_after

CONFIG = TrainConfig(device="cpu", lr=0.5, phase1_epochs=6)


def optimizer() -> torch.optim.Optimizer:
    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.5)


def rates(scheduler: torchs.LRScheduler, steps: int) -> list[float]:
    found = []
    for _ in range(steps):
        found.append(float(scheduler.get_last_lr()[0]))
        scheduler.optimizer.step()
        scheduler.step()
    return found


def test_the_factors_are_those_of_pytorchs_own_schedulers() -> None:
    steps = 40
    for schedule, theirs in {
        "constant": torchs.ConstantLR(optimizer(), 1.0),
        "linear": torchs.LinearLR(optimizer(), 1.0, 1e-12, steps),
        "cosine": torchs.CosineAnnealingLR(optimizer(), steps),
        "step": torchs.MultiStepLR(optimizer(), [20, 30], 0.1),
    }.items():
        ours = [0.5 * lr_factor(step, schedule=schedule, steps=steps) for step in range(steps)]
        np.testing.assert_allclose(ours, rates(theirs, steps), rtol=1e-6, atol=1e-9)


@settings(deadline=None)
@given(st.sampled_from(LR_SCHEDULES), st.integers(1, 500), st.integers(0, 600))
def test_the_factor_rises_through_the_warm_up_then_never_again(schedule: str, steps: int, warmup: int) -> None:
    factors = [lr_factor(step, schedule=schedule, steps=steps, warmup=warmup) for step in range(steps)]
    assert all(0 < factor <= 1 for factor in factors)
    rising, falling = factors[:warmup], factors[warmup:]
    np.testing.assert_allclose(np.diff([0.0, *rising]), 1 / (warmup + 1), atol=1e-12)
    assert np.all(np.diff(falling) <= 0)
    assert falling[:1] in ([1], [])


def test_temperatures() -> None:
    def of(schedule: str) -> list[float]:
        config = replace(CONFIG, temperature=1.6, temperature_end=0.1, temperature_schedule=schedule)
        return [temperature(config, epoch) for epoch in range(1, 7)]

    assert of("constant") == [1.6] * 6
    np.testing.assert_allclose(of("linear"), np.linspace(1.6, 0.1, 6))
    np.testing.assert_allclose(of("exponential"), np.geomspace(1.6, 0.1, 6))
    auto = replace(CONFIG, phase1_epochs="auto", max_phase1_epochs=11, temperature_schedule="linear")
    assert temperature(auto, 11) == pytest.approx(0.1)
    assert temperature(replace(auto, max_phase1_epochs=1), 1) == 0.3


@pytest.mark.parametrize("stop", [3, 4])
def test_one_schedule_may_span_both_phases_also_when_resumed(tmp_path: Path, stop: int) -> None:
    config = replace(SMALL, lr_schedule="cosine", lr_span="run")
    digits = data.load("digits")
    with pytest.raises(Stopped):
        train(config, digits, tmp_path, on_epoch=stop_after(stop))
    rows = train(config, digits, tmp_path, checkpoint=load_checkpoint(tmp_path)).rows
    expected = [config.lr * (1 + math.cos(math.pi * epoch / 5)) / 2 for epoch in range(5)]
    assert [row.learning_rate for row in rows] == pytest.approx(expected)


def test_one_schedule_needs_weights_that_go_on() -> None:
    for how in ({"rewind": True}, {"protocol": "author"}):
        with pytest.raises(InputError, match="lr_span must be phase"):
            TrainConfig(lr_span="run", **how)


def row(epoch: int, loss: float, changed: int = 0, margin: float | None = 1.0) -> EpochMetrics:
    return EpochMetrics(
        phase=1, epoch=epoch, train_loss=0, train_accuracy=0, validation_loss=loss, validation_accuracy=0,
        validation_accuracy_sampled=0, changed=changed, seconds=0, shares={}, margin=margin,
        temperature=1.0, learning_rate=1.0,
    )  # fmt: skip


RULE = TrainConfig(
    device="cpu", phase1_epochs="auto", settle_window=3, settle_changed=0.1, settle_margin=0.5, settle_loss=0.05
)
FLAT = [row(epoch, 1.0, changed=5) for epoch in range(1, 7)]


def test_flat_rows_have_settled_as_soon_as_the_window_has_something_to_compare_with() -> None:
    assert [settled(FLAT[:n], 50, RULE) for n in range(7)] == [False] * 4 + [True] * 3


@pytest.mark.parametrize("epoch", range(1, 7))
def test_each_condition_of_the_rule_counts(epoch: int) -> None:
    """One epoch of six is unlike the others; the window is the last three."""
    last = epoch == 6

    def unlike(**values: float | None) -> list[EpochMetrics]:
        return [*FLAT[: epoch - 1], replace(FLAT[epoch - 1], **values), *FLAT[epoch:]]  # type: ignore[arg-type]

    assert settled(unlike(changed=6), 50, RULE) == (epoch <= 3)
    assert settled(unlike(margin=0.49), 50, RULE) == (not last)
    assert settled(unlike(margin=None), 50, RULE) == (not last)
    assert settled(unlike(validation_loss=0.94), 50, RULE) == (epoch <= 3)
    assert settled(unlike(validation_loss=0.96), 50, RULE)
    assert settled(unlike(validation_loss=9.0), 50, RULE)


@settings(deadline=None)
@given(st.lists(st.floats(0.1, 9), max_size=12), st.integers(0, 5))
def test_patience_counts_the_epochs_since_the_first_best_one(losses: list[float], patience: int) -> None:
    waited = 0
    best = math.inf
    for loss in losses:
        waited = 0 if loss < best else waited + 1
        best = min(best, loss)
    rows = [row(epoch, loss) for epoch, loss in enumerate(losses, 1)]
    assert stalled(rows, patience) == (patience > 0 and waited >= patience)
