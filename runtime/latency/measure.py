"""Latency of several models against each other: how long a run takes, how sure that is, and what it may mean."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from smx.errors import InputError
from smx.runtime.latency.footprint import model_bytes, peak_memory
from smx.runtime.latency.interleave import Timings, time_in_turn
from smx.runtime.latency.intervals import LEVEL, MIN_ROUNDS, bootstrap
from smx.runtime.latency.runners import Runner, SessionRunner
from smx.runtime.machine import busy, machine
from smx.runtime.providers import DEVICES
from smx.runtime.settings import Settings

BLOCKS = 10
"""Into so many blocks the rounds are divided; each begins with new sessions."""

QUANTILES = (0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99)
"""Of the times of single runs, in the report."""

BIASED = 0.01
"""The baseline against itself may differ by so much before the figures are called into question."""
WIDE = 0.10
"""So wide an interval tells little."""


@dataclass(frozen=True, kw_only=True)
class Latency:
    """One candidate at one batch size; times in microseconds a run, ratios to the baseline of the same round.

    Attributes:
        name: the candidate's.
        batch_size: examples a run.
        runs: how many were timed.
        mean, p50, p90, p99: of the time of one run.
        throughput: examples a second, one run after the other.
        ratio: median over the rounds of (median of the round) / (median of the baseline in that round).
        ratio_low, ratio_high: its confidence interval, at the report's level.
        quantiles: `QUANTILES` of the time of one run.
    """

    name: str
    batch_size: int
    runs: int
    mean: float
    p50: float
    p90: float
    p99: float
    throughput: float
    ratio: float
    ratio_low: float
    ratio_high: float
    quantiles: tuple[float, ...]


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
class LatencyReport:
    """All candidates at all batch sizes, with what they ran on.

    Attributes:
        baseline: the candidate that ratios refer to.
        provider, settings, io_binding: how ONNX Runtime was told to run.
        blocks, rounds: how many, and how many altogether.
        level: of the confidence intervals.
        machine: see `smx.runtime.machine.machine`, taken before the measurement; and `load_after`.
        candidates: their sizes.
        results: their times.
        control: the baseline's file a second time, as if it were another candidate.
        warnings: why the figures may mislead.
        timings: everything that was measured; not part of `to_dict`.
    """

    baseline: str
    provider: str
    settings: Settings
    io_binding: bool
    blocks: int
    rounds: int
    level: float
    machine: dict[str, Any]
    candidates: tuple[Candidate, ...]
    results: tuple[Latency, ...]
    control: tuple[Latency, ...]
    warnings: tuple[str, ...]
    timings: Timings = field(repr=False, compare=False)

    @property
    def batch_sizes(self) -> tuple[int, ...]:
        """The batch sizes, in the order in which they were measured."""
        return tuple(dict.fromkeys(row.batch_size for row in self.results))

    def ratios(self, name: str, reference: str, batch_size: int) -> NDArray[np.float64]:
        """Return the ratio of two candidates' medians in each round, (blocks, rounds)."""
        return self.timings.medians(name, batch_size) / self.timings.medians(reference, batch_size)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        plain = {key: value for key, value in vars(self).items() if key != "timings"}
        for key in ("candidates", "results", "control"):
            plain[key] = [asdict(entry) for entry in plain[key]]
        return {**plain, "settings": asdict(self.settings), "warnings": list(self.warnings)}


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
    """Time models in turn, see `smx.runtime.latency.interleave.time_in_turn`, with the baseline once more as a control.

    The process should not have loaded another framework whose threads spin (ONNX Runtime issue 13808): give such a
    candidate a process of its own, `smx.runtime.latency.runners.ProcessRunner`.

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
        before: what `smx.runtime.machine.machine` said before this process began to work; None asks now.
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

    rows = {name: [_row(timings, name, baseline, size) for size in inputs] for name in runners}
    results = tuple(rows[name][i] for i in range(len(inputs)) for name in candidates)
    repeated = tuple(rows.get(control, ()))
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
        warnings=(*_few(blocks * each_block), *_warnings(results, repeated, baseline, before, timings)),
        timings=timings,
    )


def in_blocks(rounds: int) -> tuple[int, int]:
    """Return how many blocks there are for at least so many rounds, and how many rounds in each."""
    blocks = min(BLOCKS, rounds)
    return blocks, -(-rounds // blocks)


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


def _row(timings: Timings, name: str, baseline: str, batch_size: int) -> Latency:
    runs = timings.runs(name, batch_size)
    ratios = timings.medians(name, batch_size) / timings.medians(baseline, batch_size)
    low, high = bootstrap(ratios)
    p50, p90, p99 = (float(q) for q in np.quantile(runs, (0.5, 0.9, 0.99)))
    mean = float(runs.mean())
    return Latency(
        name=name,
        batch_size=batch_size,
        runs=len(runs),
        mean=mean,
        p50=p50,
        p90=p90,
        p99=p99,
        throughput=1e6 * batch_size / mean,
        ratio=float(np.median(ratios)),
        ratio_low=low,
        ratio_high=high,
        quantiles=tuple(float(q) for q in np.quantile(runs, QUANTILES)),
    )


def _few(rounds: int) -> Iterator[str]:
    if rounds < MIN_ROUNDS:
        yield f"{rounds} rounds are too few for intervals to rely on; expected at least {MIN_ROUNDS}"


def _warnings(
    results: Sequence[Latency],
    control: Sequence[Latency],
    baseline: str,
    before: Mapping[str, Any],
    timings: Timings,
) -> Iterator[str]:
    if found := busy(before):
        yield found
    for row in control:
        if row.ratio_low > 1 + BIASED or row.ratio_high < 1 - BIASED:
            yield (
                f"batch {row.batch_size}: {baseline} against itself measured {row.ratio:.3f}"
                f" ({row.ratio_low:.3f} to {row.ratio_high:.3f}); differences of that size mean nothing here"
            )
    for size in dict.fromkeys(row.batch_size for row in results):
        widest = max((row for row in results if row.batch_size == size), key=lambda row: row.ratio_high / row.ratio_low)
        if widest.ratio_high > (1 + WIDE) * widest.ratio_low:
            yield (
                f"batch {size}: too noisy to conclude, the interval of {widest.name} goes from {widest.ratio_low:.2f}"
                f" to {widest.ratio_high:.2f}; measure again on a quiet machine, or with more rounds"
            )
    unsteady = [key for key, blocks in timings.unsteady.items() if 2 * blocks > len(timings.bursts[key])]
    if unsteady:
        names = ", ".join(f"{name} at batch {size}" for name, size in unsteady)
        yield f"still becoming faster when their warm-up was ended: {names}"
