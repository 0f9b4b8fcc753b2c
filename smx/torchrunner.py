"""The runner of a module in PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from smx.timing.runners import LocalRunner
from smx.wrappers import compiled


class TorchRunner(LocalRunner):
    """Times a module's predictions; see `smx.timing.runners.Runner`.

    Args:
        build: makes the module on the CPU.
        device: `cpu` or `cuda`; each run ends when the device has finished.
        compiled: by `torch.compile`, once, during the first warm-up.
        threads: of the CPU, for the whole process; None leaves the number as it is.
    """

    def __init__(
        self, build: Callable[[], nn.Module], device: str = "cpu", *, compiled: bool = False, threads: int | None = None
    ) -> None:
        if threads is not None:
            torch.set_num_threads(threads)
        self._build, self._device, self._compiled = build, device, compiled

    def load(self) -> nn.Module:
        """Make the module."""
        model = self._build().to(self._device)
        return compiled(model) if self._compiled else model

    def start(self) -> float | None:
        """Make the module anew; a compiled one stays, because compiling it in every block would take minutes."""
        return None if self._compiled and self.model is not None else super().start()

    def bind(self, inputs: Sequence[NDArray[Any]]) -> Callable[[], object]:
        """Copy the inputs to the device; return what one run does."""
        work = self.work(self.model, *(torch.from_numpy(x).to(self._device) for x in inputs))

        def run() -> None:
            work()
            torch.cuda.synchronize()

        return run if self._device == "cuda" else work

    def work(self, model: nn.Module, *inputs: Tensor) -> Callable[[], object]:
        """Return what one run does: a prediction."""

        @torch.inference_mode()
        def predict() -> None:
            model(*inputs)

        return predict
