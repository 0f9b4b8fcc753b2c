"""Timings and runners that are made up. Light, since spawned processes import it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from smx.errors import InputError
from smx.timing.interleave import Timings


def timings(medians: Mapping[tuple[str, int], ArrayLike]) -> Timings:
    """Return measurements whose bursts (one run each) took these times, (blocks, rounds) by name and batch size."""
    arrays = {key: np.asarray(values, float) for key, values in medians.items()}
    bursts = {key: [[np.array([value]) for value in block] for block in values] for key, values in arrays.items()}
    return Timings(bursts=bursts, starts={name: [] for name, _ in medians})


class FakeRunner:
    """Answers so that the other side can tell that it was here."""

    def __init__(self) -> None:
        self.inputs: Sequence[NDArray[Any]] = ()

    def start(self) -> float | None:
        """Return the process's number, as if it were seconds; None once it has inputs."""
        return None if self.inputs else float(os.getpid())

    def prepare(self, inputs: Sequence[NDArray[Any]]) -> None:
        """Refuse what the test wants refused."""
        if not inputs:
            raise InputError("expected inputs, got none")
        if inputs[0].size == 0:
            raise RuntimeError("two\n  lines")
        self.inputs = inputs

    def time(self, length: int) -> NDArray[np.float64]:
        """Return the sums of the inputs again and again; die for a negative length, hang for none."""
        if length < 0:
            os._exit(9)
        if length == 0:
            import time

            time.sleep(60)
        return np.resize([float(x.sum()) for x in self.inputs], length)

    def stop(self) -> None:
        """Do nothing."""


def die(*arguments: object) -> None:
    """End the process at once."""
    os._exit(9)
