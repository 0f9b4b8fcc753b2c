"""The runner of an ONNX file in ONNX Runtime."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

from numpy.typing import NDArray

from smx.runtime.session import Session
from smx.runtime.settings import Settings
from smx.timing.runners import LocalRunner


class SessionRunner(LocalRunner):
    """Times a file in ONNX Runtime; see `smx.timing.runners.Runner`.

    Args:
        path: of the file.
        provider, allow_fallback: see `Session`.
        settings: of the session; None is ONNX Runtime's defaults, whatever `smx tune` left beside the file.
        io_binding: keep inputs and outputs on the provider's device, and wait for the device after each run.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        provider: str = "cpu",
        settings: Settings | None = None,
        *,
        io_binding: bool = False,
        allow_fallback: bool = False,
    ) -> None:
        self.path, self._io_binding = path, io_binding
        self._provider, self._settings, self._allow_fallback = provider, settings or Settings(), allow_fallback

    def load(self) -> Session:
        """Load the file."""
        return Session(self.path, self._provider, settings=self._settings, allow_fallback=self._allow_fallback)

    @property
    def session(self) -> Session:
        """The session; loads the file if it is not loaded."""
        if self.model is None:
            self.model = self.load()
        return self.model  # type: ignore[no-any-return]

    def bind(self, inputs: Sequence[NDArray[Any]]) -> Callable[[], object]:
        """Run the model once on the inputs, which checks them, and return a function that only runs it."""
        self.session.run_all(*inputs)  # its errors are one line; timed runs check nothing
        return self.session.bound(*inputs, io_binding=self._io_binding)


class EachItsOwn(SessionRunner):
    """Times a file on random inputs of its own, so that files that take different inputs are measured in turn.

    Of the inputs that it is given only the batch size counts.
    """

    def bind(self, inputs: Sequence[NDArray[Any]]) -> Callable[[], object]:
        """Bind random inputs."""
        return super().bind(self.session.random_inputs(len(inputs[0])))
