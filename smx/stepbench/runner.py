"""The runner of training steps: the very steps that `smx train` takes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor, nn

from smx.torchrunner import TorchRunner
from smx.training.config import TrainConfig
from smx.training.parallel import ALONE
from smx.training.step import Step, adam

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

    def load(self) -> nn.Module:
        """Make the module; a step compiles what it trains."""
        return self._build().to(self._device)

    def work(self, model: nn.Module, *inputs: Tensor) -> Callable[[], object]:
        """Return what one run does: a step, with an optimiser of its own. A compiled one is kept, as the module is."""
        x, y = inputs
        if len(y) in self._steps:
            return self._steps[len(y)]
        step = training_step(model, x, y, self._config, cuda_graphs=self._cuda_graphs)
        if self._compiled:
            self._steps[len(y)] = step
        for _ in range(CAPTURE if self._cuda_graphs else 0):
            step()
        return step
