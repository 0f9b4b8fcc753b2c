"""One candidate, ready to be timed: it takes the very steps that `smx train` takes."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from smx.stepbench.candidates import Build
from smx.timing.runners import time_runs
from smx.training.config import TrainConfig
from smx.training.parallel import ALONE
from smx.training.step import Step, adam

CAPTURE = 5
"""After so many calls a step that is to be captured is replayed."""


def stepping(model: nn.Module, x: Tensor, y: Tensor, *, cuda_graphs: bool = False) -> Callable[[], None]:
    """Return what takes one step of training on a batch each time it is called; Adam's settings are the defaults.

    Args:
        model: is trained.
        x, y: inputs (B, F) and class indices (B,), on the model's device.
        cuda_graphs: capture the step in one of the first calls, and replay it from then on.
    """
    config = TrainConfig(batch_size=len(y), device=x.device.type, cuda_graphs=cuda_graphs)
    step = Step(model, adam(model, config), config, phase=2)  # which makes no difference to the standard protocol
    share = ALONE.share(torch.arange(len(y), device=y.device))
    return lambda: step(x, y, share)


def on_device(inputs: Sequence[NDArray[Any]], device: str) -> list[Tensor]:
    """Copy arrays to a device."""
    return [torch.from_numpy(array).to(device) for array in inputs]


class StepRunner:
    """Steps of one candidate; see `smx.timing.runners.Runner`.

    Args:
        build: makes the network.
        device: `cpu` or `cuda`, which is waited for after each step.
        cuda_graphs: capture a step, and replay it.
        compiled: by `torch.compile`, once for each size of batch; done while it is warmed up.
    """

    def __init__(self, build: Build, device: str = "cpu", *, cuda_graphs: bool = False, compiled: bool = False) -> None:
        self._build, self._device, self._cuda_graphs, self._compiled = build, device, cuda_graphs, compiled
        self._model: nn.Module | None = None
        self._run: Callable[[], None] = lambda: None

    def start(self) -> float | None:
        """Make the network anew; a compiled one stays, because compiling it for every block would take minutes."""
        if self._compiled and self._model is not None:
            return None
        self.stop()
        started = time.perf_counter()
        self._model = self._build().to(self._device)
        if self._compiled:
            self._model.compile(dynamic=False)
        return time.perf_counter() - started

    def prepare(self, inputs: Sequence[NDArray[Any]]) -> None:
        """Bring a batch, x (B, F) and y (B,), to the device, and make an optimiser."""
        assert self._model is not None
        x, y = on_device(inputs, self._device)
        step = stepping(self._model, x, y, cuda_graphs=self._cuda_graphs)

        def run() -> None:
            step()
            if self._device == "cuda":
                torch.cuda.synchronize()

        self._run = run
        for _ in range(CAPTURE if self._cuda_graphs else 0):
            run()

    def time(self, length: int) -> NDArray[np.float64]:
        """Time steps one by one."""
        return time_runs(self._run, length)

    def stop(self) -> None:
        """Release the network."""
        self._model, self._run = None, lambda: None
