"""The runner of an ONNX file in ONNX Runtime."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from smx.runtime.session import Session
from smx.runtime.settings import Settings
from smx.timing.runners import time_runs

Array = NDArray[Any]


class SessionRunner:
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
        self.path = path
        self._open: Callable[[], Session] = lambda: Session(
            path, provider, settings=settings or Settings(), allow_fallback=allow_fallback
        )
        self._io_binding = io_binding
        self._session: Session | None = None
        self._run: Callable[[], object] = lambda: None

    @property
    def session(self) -> Session:
        """The session; loads the file if it is not loaded."""
        if self._session is None:
            self._session = self._open()
        return self._session

    def start(self) -> float:
        """Load the file anew; return the seconds it took."""
        self.stop()
        started = time.perf_counter()
        self._session = self._open()
        return time.perf_counter() - started

    def prepare(self, inputs: Sequence[Array]) -> None:
        """Check that the model runs on the inputs, and copy them to the device."""
        self.session.run_all(*inputs)  # its errors are one line; timed runs check nothing
        self._run = self.session.bound(*inputs, io_binding=self._io_binding)

    def time(self, length: int) -> NDArray[np.float64]:
        """Time runs one by one; microseconds (length,)."""
        return time_runs(self._run, length)

    def stop(self) -> None:
        """Release the session."""
        self._session, self._run = None, lambda: None
