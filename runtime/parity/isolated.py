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
from smx.runtime.parity.check import ParityReport
from smx.runtime.parity.compare import Array, compare, scale_of
from smx.runtime.session import Session
from smx.runtime.settings import Settings
from smx.subprocesses import in_subprocess

BATCH = 1000
"""Examples a run, of those that are only predicted."""


class AbortError(InputError):
    """ONNX Runtime ended the process in which it should have loaded and run a file."""


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
    """Load a model in a new process, with ONNX Runtime's default settings, and compare its outputs with expected ones.

    Args:
        path: of the file.
        samples: what the model is run on.
        name: how messages call the file.
        otherwise: what the user can do if the process ends before it answers; the end of the message.
        atol, rtol: see `smx.runtime.check_parity`.
        evaluation: examples (B, *) that the model is run on as well.

    Returns:
        The comparisons, and the first output for `evaluation`.

    Raises:
        InputError: ONNX Runtime can't load or run the file; an AbortError if the process ends before it answers.
    """
    try:
        return in_subprocess(_check, path, samples, name, atol, rtol, evaluation)
    except SmxError as error:
        if not isinstance(error.__cause__, BrokenProcessPool):
            raise
        problem = "ONNX Runtime aborts, or lacks memory, when it loads and runs it"
        raise AbortError(f"{name} was not written: {problem}; {otherwise}") from error


def _check(
    path: Path, samples: Sequence[Sample], name: str, atol: float, rtol: float, evaluation: Array | None
) -> tuple[ParityReport, Array | None]:
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # what a library prints before it aborts
    session = Session(path, settings=Settings(), name=name)
    comparisons = tuple(
        compare(
            got, expected, atol=atol, rtol=rtol, scale=scale_of(sample.inputs, expected),
            inputs=sample.name, output=output.name, batch_size=len(sample.inputs[0]),
        )
        for sample in samples
        for output, got, expected in zip(session.outputs, _run(session, sample), sample.expected, strict=True)
    )  # fmt: skip
    outputs = None if evaluation is None else session.run(evaluation, batch_size=BATCH)
    return ParityReport(atol=atol, rtol=rtol, comparisons=comparisons), outputs


def _run(session: Session, sample: Sample) -> list[Array]:
    try:
        return session.run_all(*sample.inputs)
    except InputError as error:
        raise InputError(f"{error} ({sample.name}, batch {len(sample.inputs[0])})") from error
