"""A saved model in PyTorch, as a candidate of a latency measurement."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from smx.modelfile import load_model
from smx.timing.runners import time_runs


class TorchRunner:
    """The model, eager or compiled by `torch.compile`; see `smx.timing.runners.Runner`.

    Args:
        path: of `model.pt`.
        compiled: by `torch.compile`; done while it is warmed up.
        device: `cpu` or `cuda`, which is waited for after each run.
        threads: of the CPU; None leaves it to PyTorch.
        trust_code: see `smx.modelfile.load_model`.
    """

    def __init__(
        self, path: Path, *, compiled: bool, device: str = "cpu", threads: int | None = None, trust_code: bool = False
    ) -> None:
        if threads is not None:
            torch.set_num_threads(threads)
        self._trust_code = trust_code
        self._path, self._compiled, self._device = path, compiled, device
        self._model: nn.Module | None = None
        self._run: Callable[[], object] = lambda: None

    def start(self) -> float | None:
        """Load the model, once: compiling it anew for every block would take minutes."""
        if self._model is not None:
            return None
        started = time.perf_counter()
        model = load_model(self._path, trust_code=self._trust_code).build().to(self._device)
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
