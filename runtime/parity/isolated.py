"""A file is loaded and run in a process of its own, as its users will do, before it takes its place.

ONNX Runtime aborts the process for some graphs, for example for attention in float16 at its default optimisation: an
exporter that loaded such a file itself would end without a message.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path

from smx.errors import InputError, SmxError
from smx.runtime.parity.check import ParityReport, check_parity
from smx.runtime.parity.compare import Array, Comparison
from smx.runtime.session import Session
from smx.runtime.settings import Settings
from smx.subprocesses import in_subprocess

BATCH = 1000
"""Examples a run, of those that are only predicted."""


@dataclass(frozen=True, kw_only=True)
class Sample:
    """Examples that a file is run on, all at once.

    Attributes:
        name: what they are.
        inputs: an array (B, *) for each input of the model.
        expected: an array (B, *) for each output.
    """

    name: str
    inputs: tuple[Array, ...]
    expected: tuple[Array, ...]


def check_isolated(
    path: Path,
    samples: Sequence[Sample],
    *,
    name: str,
    otherwise: str,
    atol: float,
    rtol: float,
    evaluation: Array | None = None,
) -> tuple[ParityReport, Array | None]:
    """Load a model in a new process, with ONNX Runtime's default settings, and compare it with what is expected of it.

    Args:
        path: of the file.
        samples: what the model is run on.
        name: how messages call the file.
        otherwise: what the user can do where ONNX Runtime ends the process; the end of a message.
        atol, rtol: see `check_parity`.
        evaluation: examples (B, *) that the model is run on as well.

    Returns:
        The comparisons, and the first output for `evaluation`.

    Raises:
        InputError: ONNX Runtime can't load or run the file, or ends the process.
    """
    try:
        return in_subprocess(_check, path, samples, name, atol, rtol, evaluation)
    except SmxError as error:
        if not isinstance(error.__cause__, BrokenProcessPool):
            raise
        message = f"{name} was not written: ONNX Runtime aborts every process that loads and runs it; {otherwise}"
        raise InputError(message) from error


def _check(
    path: Path, samples: Sequence[Sample], name: str, atol: float, rtol: float, evaluation: Array | None
) -> tuple[ParityReport, Array | None]:
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # what a library prints before it aborts
    session = Session(path, settings=Settings(), name=name)
    comparisons: list[Comparison] = []
    for sample in samples:
        expected = list(sample.expected)
        report = check_parity(
            lambda *_, expected=expected: expected,
            session,
            {sample.name: sample.inputs},
            atol=atol,
            rtol=rtol,
            batch_sizes=(len(sample.inputs[0]),),
        )
        comparisons += report.comparisons
    outputs = None if evaluation is None else session.run(evaluation, batch_size=BATCH)
    return ParityReport(atol=atol, rtol=rtol, comparisons=tuple(comparisons)), outputs
