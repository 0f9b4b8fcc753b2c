"""The runner of training steps: the very steps that `smx train` takes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from smx.torchrunner import TorchRunner
from smx.training.config import TrainConfig
from smx.training.parallel import ALONE
from smx.training.step import Step, adam, period

CAPTURE = 5
"""A step that is to be captured is replayed after this many calls."""

DEFAULTS = TrainConfig()


def training_step(
    model: nn.Module, x: Tensor, y: Tensor, config: TrainConfig = DEFAULTS, *, cuda_graphs: bool = False
) -> Callable[[], None]:
    """Return a function that takes one step of training on a batch.

    Args:
        model: is trained.
        x, y: inputs (B, F) and class indices (B,), on the model's device.
        config: the settings but for batch size, device and CUDA graphs.
        cuda_graphs: capture the step in one of the first calls, and replay it from then on.
    """
    config = replace(config, batch_size=len(y), device=x.device.type, cuda_graphs=cuda_graphs)
    step = Step(model, adam(model, config), config, phase=1)  # a step of phase 2 is the same, without logits
    share = ALONE.share(torch.arange(len(y), device=y.device))
    return lambda: step(x, y, share)


class StepRunner(TorchRunner):
    """Times a network's training steps; its inputs are a batch, x (B, F) and y (B,).

    Args:
        build, device, compiled: see `TorchRunner`.
        config: see `training_step`.
        cuda_graphs: capture a step, and time its replay.
    """

    def __init__(
        self,
        build: Callable[[], nn.Module],
        device: str = "cpu",
        config: TrainConfig = DEFAULTS,
        *,
        cuda_graphs: bool = False,
        compiled: bool = False,
    ) -> None:
        super().__init__(build, device, compiled=compiled)
        self._config, self._cuda_graphs = replace(config, compile=compiled), cuda_graphs
        self._steps: dict[int, Callable[[], None]] = {}
        self._together = 1

    def load(self) -> nn.Module:
        """Make the module; a step compiles what it trains."""
        return self._build().to(self._device)

    def work(self, model: nn.Module, *inputs: Tensor) -> Callable[[], object]:
        """Return what one run does: a step, with an optimiser of its own. A compiled one is kept, as the module is."""
        x, y = inputs
        if len(y) in self._steps:
            return self._steps[len(y)]
        step = training_step(model, x, y, self._config, cuda_graphs=self._cuda_graphs)
        self._together = period(model, replace(self._config, device=self._device, cuda_graphs=self._cuda_graphs))
        if self._compiled:
            self._steps[len(y)] = step
        for _ in range(CAPTURE if self._cuda_graphs else 0):
            step()

        def run() -> None:
            for _ in range(self._together):
                step()

        return run

    def time(self, length: int) -> NDArray[np.float64]:
        """Time runs one by one; microseconds of a step. Where only some steps observe, a run is as many as repeat."""
        return super().time(-(-length // self._together)) / self._together
