"""Latency of several models against each other: how long a run takes, how sure that is, and what it may mean."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from smx.errors import InputError
from smx.runtime.latency.footprint import model_bytes, peak_memory
from smx.runtime.latency.runner import SessionRunner
from smx.runtime.providers import DEVICES
from smx.runtime.settings import Settings
from smx.timing.interleave import in_blocks, time_in_turn
from smx.timing.intervals import LEVEL
from smx.timing.machine import machine
from smx.timing.report import TimingReport, doubts, few, rows
from smx.timing.runners import Runner


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """What a candidate costs besides the time of its runs; None where that was not measured.

    Attributes:
        name: the candidate's.
        bytes: size of the file, with the weights beside it.
        start: milliseconds to create a session; median over the blocks.
        peak_memory: bytes that a process takes at most to load and run it at the largest batch size, beyond its
            libraries.
    """

    name: str
    bytes: int | None
    start: float | None
    peak_memory: int | None


@dataclass(frozen=True, kw_only=True)
class LatencyReport(TimingReport):
    """All candidates at all batch sizes, with what they ran on; the control is the baseline's file a second time.

    Attributes:
        provider, settings, io_binding: how ONNX Runtime was told to run.
        candidates: their sizes.
    """

    provider: str
    settings: Settings
    io_binding: bool
    candidates: tuple[Candidate, ...]


def measure_latency(
    candidates: Mapping[str, str | os.PathLike[str] | Runner],
    *,
    baseline: str,
    batch_sizes: Sequence[int] = (1, 16, 128, 1024),
    provider: str = "cpu",
    settings: Settings | None = None,
    io_binding: bool | None = None,
    allow_fallback: bool = False,
    rounds: int = 60,
    memory: bool = True,
    before: Mapping[str, Any] | None = None,
    seed: int = 0,
    on_progress: Callable[[int], None] = lambda batch_size: None,
) -> LatencyReport:
    """Time models in turn, see `smx.timing.interleave.time_in_turn`, with the baseline once more as a control.

    The process should not have loaded another framework whose threads spin (ONNX Runtime issue 13808): give such a
    candidate a process of its own, `smx.timing.runners.ProcessRunner`.

    Args:
        candidates: files by name, or runners; all take inputs of the same shapes (B, *).
        baseline: the name of the candidate that the ratios refer to.
        batch_sizes: examples a run.
        provider: see `smx.runtime.providers.PROVIDERS`.
        settings: of all files' sessions; None is one thread.
        io_binding: keep tensors on the provider's device; None does so where it has memory of its own.
        allow_fallback: see `Session`.
        rounds: altogether, at least.
        memory: measure what each file takes, in a process for each.
        before: what `smx.timing.machine.machine` said before this process began to work; None asks now.
        seed: of the inputs and of the order.
        on_progress: called before each round of each batch size.

    Raises:
        InputError: there is no such baseline, or a model can't be loaded or run, or they take different inputs.
        SmxError: a process of a candidate was killed.
    """
    if baseline not in candidates:
        raise InputError(f"the baseline {baseline!r} is not among the candidates {', '.join(candidates)}")
    settings = settings or Settings(threads=1)
    binding = provider in DEVICES if io_binding is None else io_binding
    before = dict(before or machine())

    def runner(candidate: str | os.PathLike[str] | Runner) -> Runner:
        if not isinstance(candidate, str | os.PathLike):
            return candidate
        return SessionRunner(candidate, provider, settings, io_binding=binding, allow_fallback=allow_fallback)

    runners = {name: runner(candidate) for name, candidate in candidates.items()}
    control = f"{baseline} again"
    while control in candidates:
        control += " again"
    again = candidates[baseline]
    if isinstance(again, str | os.PathLike):
        runners[control] = runner(again)
    try:
        inputs = _inputs(runners, batch_sizes, seed)
        blocks, each_block = in_blocks(rounds)
        timings = time_in_turn(
            runners,
            inputs,
            blocks=blocks,
            rounds=each_block,
            rest=settings.threads != 1,
            seed=seed,
            on_progress=on_progress,
        )
    finally:
        for each in runners.values():
            each.stop()
    largest = inputs[max(inputs)]

    def detail(name: str) -> Candidate:
        candidate, starts = candidates[name], timings.starts[name]
        start = 1e3 * float(np.median(starts)) if starts else None
        if not isinstance(candidate, str | os.PathLike):
            return Candidate(name=name, bytes=None, start=start, peak_memory=None)
        peak = None
        if memory:
            peak = peak_memory(candidate, largest, provider=provider, settings=settings, allow_fallback=allow_fallback)
        return Candidate(name=name, bytes=model_bytes(candidate), start=start, peak_memory=peak)

    results = rows(timings, candidates, baseline, inputs)
    repeated = rows(timings, [control] if control in runners else [], baseline, inputs)
    return LatencyReport(
        baseline=baseline,
        provider=provider,
        settings=settings,
        io_binding=binding,
        blocks=blocks,
        rounds=blocks * each_block,
        level=LEVEL,
        machine={**before, "load_after": machine()["load"]},
        candidates=tuple(map(detail, candidates)),
        results=results,
        control=repeated,
        warnings=(*few(blocks * each_block), *doubts(results, repeated, baseline, before, timings)),
        timings=timings,
    )


def _inputs(runners: Mapping[str, Runner], batch_sizes: Sequence[int], seed: int) -> dict[int, list[NDArray[Any]]]:
    """Return random inputs by batch size, which all candidates take."""
    sessions = {name: runner.session for name, runner in runners.items() if isinstance(runner, SessionRunner)}
    if not sessions:
        raise InputError("at least one candidate must be an ONNX file")
    shapes = {name: [(entry.type, *entry.shape[1:]) for entry in session.inputs] for name, session in sessions.items()}
    first = next(iter(sessions))
    for name, shape in shapes.items():
        if shape != shapes[first]:
            raise InputError(
                f"all candidates must take the same inputs, but {first} takes {_described(shapes[first])}, {name}"
                f" {_described(shape)}"
            )
    for session in sessions.values():
        if session.batch and set(batch_sizes) != {session.batch}:
            raise InputError(
                f"{session.name} is made for batch size {session.batch} alone, got"
                f" {', '.join(map(str, batch_sizes))}; give --batch-sizes {session.batch}"
            )
    return {size: sessions[first].random_inputs(size, seed) for size in batch_sizes}


def _described(inputs: Sequence[tuple[Any, ...]]) -> str:
    return ", ".join(f"{kind} of shape ({', '.join(map(str, ('batch', *sizes)))})" for kind, *sizes in inputs)
