"""Measure the latency of ONNX files side by side, with what else they cost."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from smx.errors import InputError
from smx.runtime.latency.footprint import Footprint, model_bytes, peak_memory
from smx.runtime.latency.runner import SessionRunner
from smx.runtime.providers import DEVICES
from smx.runtime.settings import Settings
from smx.timing import BATCH_SIZES
from smx.timing.bench import run_bench
from smx.timing.report import TimingReport
from smx.timing.runners import Runner


@dataclass(frozen=True, kw_only=True)
class LatencyReport(TimingReport):
    """The latency of all candidates at all batch sizes; the control is a second session of the baseline's file.

    Attributes:
        provider: see `smx.runtime.providers.PROVIDERS`.
        settings: of the sessions.
        io_binding: whether inputs and outputs stayed on the provider's device.
        candidates: what each costs besides time.
    """

    provider: str
    settings: Settings
    io_binding: bool
    candidates: tuple[Footprint, ...]


def measure_latency(
    candidates: Mapping[str, str | os.PathLike[str] | Runner],
    *,
    baseline: str,
    batch_sizes: Sequence[int] = BATCH_SIZES,
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
    """Time models in turn, see `smx.timing.interleave.time_in_turn`, on random inputs.

    This process should not have loaded another framework whose threads spin (ONNX Runtime issue 13808): run such a
    candidate in a process of its own, by `smx.timing.runners.ProcessRunner`.

    Args:
        candidates: files or runners, by name; all take inputs of the same shapes (B, *).
        baseline: name of the candidate that ratios refer to; if it is a file, it is also measured a second time.
        batch_sizes: examples a run.
        provider: see `smx.runtime.providers.PROVIDERS`.
        settings: of the sessions of files; None is one thread.
        io_binding: keep inputs and outputs on the provider's device; None does so if it has memory of its own.
        allow_fallback: see `Session`.
        rounds: at least this many in all.
        memory: measure the memory of each file, in a process of its own.
        before: what `smx.timing.machine.machine` returned before this process began to work; None asks now.
        seed: of the inputs and of the order.
        on_progress: called before each round with its batch size.

    Raises:
        InputError: the baseline is no candidate, no candidate is an ONNX file, a model can't be loaded or run, or the
            models take different inputs.
        SmxError: the process of a candidate was killed.
    """
    if baseline not in candidates:
        raise InputError(f"the baseline {baseline!r} is not among the candidates {', '.join(candidates)}")
    settings = settings or Settings(threads=1)
    binding = provider in DEVICES if io_binding is None else io_binding
    files = {name: each for name, each in candidates.items() if isinstance(each, str | os.PathLike)}

    with ExitStack() as stack:

        def runner(name: str) -> Runner:
            each = candidates[name]
            if isinstance(each, str | os.PathLike):
                each = SessionRunner(each, provider, settings, io_binding=binding, allow_fallback=allow_fallback)
            stack.callback(each.stop)
            return each

        runners = {name: runner(name) for name in candidates}
        inputs = _inputs(runners, batch_sizes, seed)
        report = run_bench(
            runners,
            inputs,
            baseline=baseline,
            control=runner(baseline) if baseline in files else None,
            rounds=rounds,
            rest=settings.threads != 1,
            before=before,
            seed=seed,
            on_progress=on_progress,
        )

    def footprint(name: str) -> Footprint:
        starts = report.timings.starts[name]
        start = 1e3 * float(np.median(starts)) if starts else None
        if name not in files:
            return Footprint(name=name, bytes=None, start=start, peak_memory=None)
        options: dict[str, Any] = {"provider": provider, "settings": settings, "allow_fallback": allow_fallback}
        peak = peak_memory(files[name], inputs[max(inputs)], **options) if memory else None
        return Footprint(name=name, bytes=model_bytes(files[name]), start=start, peak_memory=peak)

    return LatencyReport(
        **vars(report),
        provider=provider,
        settings=settings,
        io_binding=binding,
        candidates=tuple(map(footprint, candidates)),
    )


def _inputs(runners: Mapping[str, Runner], batch_sizes: Sequence[int], seed: int) -> dict[int, list[NDArray[Any]]]:
    """Return random inputs by batch size; check that all files take them."""
    sessions = {name: runner.session for name, runner in runners.items() if isinstance(runner, SessionRunner)}
    if not sessions:
        raise InputError("at least one candidate must be an ONNX file")
    first = next(iter(sessions))
    for name, session in sessions.items():
        if (taken := _described(session.inputs)) != (expected := _described(sessions[first].inputs)):
            raise InputError(f"all candidates must take the same inputs, but {first} takes {expected}, {name} {taken}")
        if session.batch and set(batch_sizes) != {session.batch}:
            raise InputError(
                f"{session.name} is made for batch size {session.batch}, got {', '.join(map(str, batch_sizes))};"
                f" measure batch size {session.batch} alone"
            )
    return {size: sessions[first].random_inputs(size, seed) for size in batch_sizes}


def _described(inputs: Sequence[Any]) -> str:
    return ", ".join(f"{each.type} of shape ({', '.join(map(str, ('batch', *each.shape[1:])))})" for each in inputs)
