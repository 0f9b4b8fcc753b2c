"""How another engine is to run a model: the few settings that a repository and a manifest share."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from smx.errors import InputError
from smx.runtime.tuning import read_tuning

DEVICES = ("cpu", "gpu")


@dataclass(frozen=True, kw_only=True)
class Engine:
    """The settings.

    Attributes:
        device: a key of `DEVICES`.
        max_batch: rows of one run; 1 does not batch.
        max_delay: seconds that a request waits for others.
        instances: copies of the model that run at the same time, on each GPU or on the CPU.
        threads: of one operator on the CPU; None takes what `smx tune` found for the file on this machine, or else 1.
            ONNX Runtime's own default is one for each core, of which a container may use but a few.
        version: of the model.

    Raises:
        InputError: a value is not allowed.
    """

    device: str = "cpu"
    max_batch: int = 64
    max_delay: float = 0.0005
    instances: int = 1
    threads: int | None = None
    version: int = 1

    def __post_init__(self) -> None:
        if self.device not in DEVICES:
            raise InputError(f"unknown device {self.device!r}; known are {', '.join(DEVICES)}")
        for name in ("max_batch", "instances", "threads", "version"):
            value = getattr(self, name)
            if value is not None and not (type(value) is int and value >= 1):
                raise InputError(f"{name} must be a whole number, at least 1, got {value!r}")
        if not 0 <= self.max_delay <= 10:
            raise InputError(f"max_delay must be 0 to 10 seconds, got {self.max_delay}")


def threads_of(model: Path, engine: Engine, *, each_core: bool = False) -> int:
    """Return the threads of one operator on the CPU.

    0 is one for each core, as `smx tune` may have found; with `each_core` it is how many cores its machine has.
    """
    if engine.threads is not None:
        return engine.threads
    tuning, _ = read_tuning(model, "cpu")
    if tuning is None:
        return 1
    return tuning.settings.threads or (int(tuning.machine["cores"] or 1) if each_core else 0)
