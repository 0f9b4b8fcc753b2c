"""The settings of an ONNX Runtime session."""

from __future__ import annotations

from dataclasses import dataclass

import onnxruntime as ort

from smx.errors import InputError
from smx.limits import THREADS

OPTIMIZATIONS = {
    "disabled": ort.GraphOptimizationLevel.ORT_DISABLE_ALL,
    "basic": ort.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    "extended": ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
    "all": ort.GraphOptimizationLevel.ORT_ENABLE_ALL,
}
"""ONNX Runtime's levels of graph optimisation, by short names."""

EXECUTION_MODES = {"sequential": ort.ExecutionMode.ORT_SEQUENTIAL, "parallel": ort.ExecutionMode.ORT_PARALLEL}
"""Operators run one after the other, or independent ones at the same time."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The settings of a session that change its speed, not its answers; the defaults are ONNX Runtime's.

    Attributes:
        threads: threads of one operator, and in parallel mode also of all operators; None is one for each core.
        spinning: whether idle threads wait actively. This is faster when runs follow each other, but keeps cores busy.
        execution_mode: a key of `EXECUTION_MODES`.
        optimization: a key of `OPTIMIZATIONS`.

    Raises:
        InputError: a value is not allowed.
    """

    threads: int | None = None
    spinning: bool = True
    execution_mode: str = "sequential"
    optimization: str = "all"

    def __post_init__(self) -> None:
        if self.threads is not None and not (isinstance(self.threads, int) and self.threads >= 1):
            raise InputError(f"threads must be at least 1, got {self.threads}")
        if self.threads is not None and self.threads > THREADS:
            raise InputError(f"threads must be at most {THREADS}, got {self.threads}")
        if not isinstance(self.spinning, bool):
            raise InputError(f"spinning must be true or false, got {self.spinning}")
        for field, known in (("execution_mode", EXECUTION_MODES), ("optimization", OPTIMIZATIONS)):
            if (value := getattr(self, field)) not in known:
                raise InputError(f"unknown {field.replace('_', ' ')} {value!r}; known are {', '.join(known)}")

    def to_options(self) -> ort.SessionOptions:
        """Return new session options."""
        options = ort.SessionOptions()
        options.log_severity_level = 4
        if self.threads is not None:
            options.intra_op_num_threads = options.inter_op_num_threads = self.threads
        options.execution_mode = EXECUTION_MODES[self.execution_mode]
        options.graph_optimization_level = OPTIMIZATIONS[self.optimization]
        for threads in ("intra_op", "inter_op"):
            options.add_session_config_entry(f"session.{threads}.allow_spinning", str(int(self.spinning)))
        return options

    def describe(self) -> str:
        """Return the settings in words that fit a table."""
        threads = f"{self.threads or 'all'} thread{'' if self.threads == 1 else 's'}"
        idle = "spinning" if self.spinning else "not spinning"
        return f"{threads}, {idle}, {self.execution_mode}, optimisation {self.optimization}"
