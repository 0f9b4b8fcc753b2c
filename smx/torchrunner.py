"""The runner of a module in PyTorch."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from smx.timing.runners import time_runs


class TorchRunner:
    """Times a module's predictions; see `smx.timing.runners.Runner`.

    Args:
        build: makes the module on the CPU.
        device: `cpu` or `cuda`; each run ends when the device has finished.
        compiled: by `torch.compile`, once, during the first warm-up.
        threads: of the CPU, for the whole process; None leaves the number as it is.
    """

    dynamic: bool | None = None
    """Whether one compiled program serves all batch sizes; None lets PyTorch decide."""

    def __init__(
        self,
        build: Callable[[], nn.Module],
        device: str = "cpu",
        *,
        compiled: bool = False,
        threads: int | None = None,
    ) -> None:
        if threads is not None:
            torch.set_num_threads(threads)
        self._build, self._device, self._compiled = build, device, compiled
        self._model: nn.Module | None = None
        self._run: Callable[[], object] = lambda: None

    def start(self) -> float | None:
        """Make the module anew; a compiled one stays, because compiling it in every block would take minutes."""
        if self._compiled and self._model is not None:
            return None
        self.stop()
        started = time.perf_counter()
        self._model = self._build().to(self._device)
        if self._compiled:
            self._model.compile(dynamic=self.dynamic)
        return time.perf_counter() - started

    def prepare(self, inputs: Sequence[NDArray[Any]]) -> None:
        """Copy the inputs to the device."""
        assert self._model is not None
        work = self.work(self._model, *(torch.from_numpy(x).to(self._device) for x in inputs))

        def run() -> None:
            work()
            if self._device == "cuda":
                torch.cuda.synchronize()

        self._run = run

    def work(self, model: nn.Module, *inputs: Tensor) -> Callable[[], object]:
        """Return what one run does: a prediction."""

        @torch.inference_mode()
        def predict() -> None:
            model(*inputs)

        return predict

    def time(self, length: int) -> NDArray[np.float64]:
        """Time runs one by one; microseconds (length,)."""
        return time_runs(self._run, length)

    def stop(self) -> None:
        """Release the module."""
        self._model, self._run = None, lambda: None
