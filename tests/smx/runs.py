"""Short runs on the digits, and how they are stopped and resumed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from smx.data import Dataset
from smx.training.config import TrainConfig
from smx.training.run import TrainResult, load_checkpoint, train

SMALL = TrainConfig(hidden=(20, 12), phase1_epochs=3, phase2_epochs=2, lr=0.01, device="cpu")
SCHEDULED = replace(SMALL, lr_schedule="cosine", lr_warmup=1, temperature_schedule="exponential", temperature_end=0.05)


class Stopped(Exception):  # noqa: N818
    """What ends a run in the middle."""


def stop_after(calls: int) -> Callable[..., None]:
    """Return a function whose last of so many calls raises `Stopped`."""
    left = iter(range(calls - 1))

    def stop(*args: object) -> None:
        if next(left, None) is None:
            raise Stopped

    return stop


def stop_run(config: TrainConfig, digits: Dataset, out: Path, epochs: int) -> None:
    with pytest.raises(Stopped):
        train(config, digits, out, on_epoch=stop_after(epochs))


def stopped_and_resumed(config: TrainConfig, digits: Dataset, out: Path, epochs: int) -> TrainResult:
    stop_run(config, digits, out, epochs)
    return train(config, digits, out, checkpoint=load_checkpoint(out))
