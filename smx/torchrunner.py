"""A saved model in PyTorch, as a candidate of a latency measurement."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from smx.timing.runners import time_runs


class TorchRunner:
    """The model, eager or compiled by `torch.compile`; see `smx.timing.runners.Runner`.

    Args:
        load: makes the network, in `eval()` on the CPU.
        compiled: by `torch.compile`; done while it is warmed up.
        device: `cpu` or `cuda`, which is waited for after each run.
        threads: of the CPU; None leaves it to PyTorch.
    """

    def __init__(
        self, load: Callable[[], nn.Module], *, compiled: bool, device: str = "cpu", threads: int | None = None
    ) -> None:
        if threads is not None:
            torch.set_num_threads(threads)
        self._load, self._compiled, self._device = load, compiled, device
        self._model: nn.Module | None = None
        self._run: Callable[[], object] = lambda: None

    def start(self) -> float | None:
        """Load the model, once: compiling it anew for every block would take minutes."""
        if self._model is not None:
            return None
        started = time.perf_counter()
        model = self._load().to(self._device)
        if self._compiled:
            model.compile()
        self._model = model
        return time.perf_counter() - started

    def prepare(self, inputs: Sequence[NDArray[Any]]) -> None:
        """Bring the inputs to the device."""
        model, arguments = self._model, [torch.from_numpy(x).to(self._device) for x in inputs]
        assert model is not None

        def run() -> None:
            with torch.inference_mode():
                model(*arguments)
            if self._device == "cuda":
                torch.cuda.synchronize()

        self._run = run

    def time(self, length: int) -> NDArray[np.float64]:
        """Time runs one by one."""
        return time_runs(self._run, length)

    def stop(self) -> None:
        """Release the model."""
        self._model, self._run = None, lambda: None
