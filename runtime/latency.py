"""Latency of several models against each other, interleaved so that the machine's moods hit all of them alike."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from smx.errors import InputError
from smx.runtime.machine import machine
from smx.runtime.session import Session

BURST_SECONDS = 0.01
"""About how long one candidate runs before it is the next one's turn."""
MAX_BURST = 50


@dataclass(frozen=True, kw_only=True)
class Latency:
    """One candidate at one batch size; times in microseconds a run, ratios to the baseline of the same round.

    Attributes:
        name: the candidate's.
        batch_size: examples a run.
        runs: how many were timed.
        p50, p90, p99: quantiles of the time of one run.
        ratio: median over the rounds of (median of the round) / (median of the baseline in that round).
        ratio_low, ratio_high: the quartiles of those ratios, their spread.
    """

    name: str
    batch_size: int
    runs: int
    p50: float
    p90: float
    p99: float
    ratio: float
    ratio_low: float
    ratio_high: float


@dataclass(frozen=True, kw_only=True)
class LatencyReport:
    """All candidates at all batch sizes, with what they ran on."""

    baseline: str
    threads: int
    provider: str
    rounds: int
    machine: dict[str, Any]
    results: tuple[Latency, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        return asdict(self)


def measure_latency(
    candidates: Mapping[str, str | os.PathLike[str]],
    *,
    baseline: str,
    batch_sizes: Sequence[int] = (1, 16, 128, 1024),
    threads: int = 1,
    provider: str = "cpu",
    rounds: int = 40,
    seed: int = 0,
    on_progress: Callable[[int, int], None] = lambda batch_size, round: None,
) -> LatencyReport:
    """Time models in turn: in each round every candidate runs a short burst, in a random order.

    The process should not have loaded another framework whose threads spin (ONNX Runtime issue 13808).

    Args:
        candidates: files by name; all take one input, of the same shape (B, *).
        baseline: the name of the candidate that the ratios refer to.
        batch_sizes: examples a run.
        threads: of ONNX Runtime, for one operator.
        provider: see `smx.runtime.session.PROVIDERS`.
        rounds: after a warm-up of a burst for each candidate.
        seed: of the inputs, uniform in [0, 1), and of the order.
        on_progress: called before each round.

    Raises:
        InputError: there is no such baseline, or a model can't be loaded or run.
    """
    if baseline not in candidates:
        raise InputError(f"the baseline {baseline!r} is not among the candidates {', '.join(candidates)}")
    sessions = {name: Session(path, provider, threads) for name, path in candidates.items()}
    random = np.random.default_rng(seed)
    results: list[Latency] = []
    for batch_size in batch_sizes:
        x = random.random((batch_size, *_sample_shape(sessions)), dtype=np.float32)
        bursts = {name: _burst_length(session, x) for name, session in sessions.items()}
        times: dict[str, list[NDArray[np.float64]]] = {name: [] for name in sessions}
        for round in range(rounds):
            on_progress(batch_size, round)
            for name in random.permutation(list(sessions)):
                times[name].append(_time_burst(sessions[name], x, bursts[name]))
        reference = np.array([np.median(burst) for burst in times[baseline]])
        for name, measured in times.items():
            ratios = np.array([np.median(burst) for burst in measured]) / reference
            p50, p90, p99 = (float(q) for q in np.quantile(np.concatenate(measured), (0.5, 0.9, 0.99)))
            low, middle, high = (float(q) for q in np.quantile(ratios, (0.25, 0.5, 0.75)))
            results.append(
                Latency(
                    name=name, batch_size=batch_size, runs=sum(map(len, measured)),
                    p50=p50, p90=p90, p99=p99, ratio=middle, ratio_low=low, ratio_high=high,
                )
            )  # fmt: skip
    return LatencyReport(
        baseline=baseline,
        threads=threads,
        provider=provider,
        rounds=rounds,
        machine=machine(),
        results=tuple(results),
    )


def _sample_shape(sessions: Mapping[str, Session]) -> tuple[int, ...]:
    """Return the shape of one example, the same for all candidates."""
    shapes = {name: tuple(session.inputs[0].shape[1:]) for name, session in sessions.items()}
    if len(set(shapes.values())) != 1 or any(not isinstance(size, int) for size in next(iter(shapes.values()))):
        raise InputError(f"the candidates must take examples of one fixed shape, got {shapes}")
    return next(iter(shapes.values()))


def _burst_length(session: Session, x: NDArray[np.float32]) -> int:
    """Warm a session up, and tell how many of its runs fill a burst."""
    session.run(x)
    seconds = float(np.median(_time_burst(session, x, 5))) * 1e-6
    length = max(1, min(MAX_BURST, round(BURST_SECONDS / seconds)))
    _time_burst(session, x, length)
    return length


def _time_burst(session: Session, x: NDArray[np.float32], length: int) -> NDArray[np.float64]:
    """Time `length` runs one by one, in microseconds, after one that brings the model back into the caches."""
    run = session.bound(x)
    run()
    times = np.empty(length)
    for i in range(length):
        start = time.perf_counter_ns()
        run()
        times[i] = time.perf_counter_ns() - start
    return times / 1e3
