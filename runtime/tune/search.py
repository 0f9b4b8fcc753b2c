"""Search the number of threads and the layout that are fastest for a goal on this machine."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from itertools import count
from math import prod
from typing import Any

from smx.errors import InputError
from smx.limits import THREADS
from smx.runtime.latency.measure import measure_latency
from smx.runtime.latency.runner import SessionRunner
from smx.runtime.settings import Settings
from smx.runtime.tune.goals import GOALS, figure, ratio
from smx.timing.interleave import Timings, in_blocks
from smx.timing.intervals import LEVEL, MIN_ROUNDS
from smx.timing.machine import machine

TAIL_RUNS = 1000
"""Timed runs at least for a 99 % quantile."""

OnProgress = Callable[[str, int, int], None]
"""Called before each round with what is being measured, the number of finished rounds, and of all rounds."""


@dataclass(frozen=True, kw_only=True)
class Configuration:
    """A way to run a model.

    Attributes:
        file: which of the files; "" is the one that is tuned.
        threads: for one operator; None leaves the number to ONNX Runtime, which takes one for each core.
    """

    file: str = ""
    threads: int | None = None

    @property
    def settings(self) -> Settings:
        """The settings of a session."""
        return Settings(threads=self.threads)

    def describe(self) -> str:
        """Return it in words that fit a table."""
        threads = f"{self.threads or 'all'} thread{'' if self.threads == 1 else 's'}"
        return f"{self.file}, {threads}" if self.file else threads


DEFAULT = Configuration()


@dataclass(frozen=True, kw_only=True)
class Measured:
    """A configuration's ratio to the default in the search, with its confidence interval.

    The smallest of several noisy ratios is smaller than the truth: it chooses a configuration, and proves nothing.
    """

    name: str
    ratio: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class TuningReport:
    """The configuration that a search chose, and a second measurement of it against the default.

    Attributes:
        goal: a key of `smx.runtime.tune.goals.GOALS`.
        batch_size: examples a run.
        provider: see `smx.runtime.providers.PROVIDERS`.
        measured: all configurations but the default, the fastest first.
        best: the configuration that the search chose.
        rounds: of the second measurement.
        level: of the confidence intervals.
        ratio, low, high: statistic of the best configuration / statistic of the default in the second measurement, and
            its interval. The statistic is of the time of a run, so that below 1 is faster, for throughput too.
        default_figure, best_figure: the statistic in microseconds a run, or in examples a second for throughput.
        machine: see `smx.timing.machine.machine`.
        warnings: reasons to distrust the second measurement.
        seconds: duration of all.
    """

    goal: str
    batch_size: int
    provider: str
    measured: tuple[Measured, ...]
    best: Configuration
    rounds: int
    level: float
    ratio: float
    low: float
    high: float
    default_figure: float
    best_figure: float
    machine: dict[str, Any]
    warnings: tuple[str, ...]
    seconds: float

    @property
    def kept_default(self) -> bool:
        """Whether the defaults stay: the interval of the best configuration is not wholly below 1."""
        return not self.high < 1

    @property
    def winner(self) -> Configuration:
        """The configuration to use."""
        return DEFAULT if self.kept_default else self.best

    @property
    def gain(self) -> dict[str, float]:
        """The winner's ratio to the default with its interval; 1 for the default itself."""
        ratio, low, high = (1.0, 1.0, 1.0) if self.kept_default else (self.ratio, self.low, self.high)
        return {"ratio": ratio, "low": low, "high": high, "level": self.level, "rounds": self.rounds}

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        return {**asdict(self), "kept_default": self.kept_default, "winner": asdict(self.winner)}


def thread_counts(cores: int) -> list[int | None]:
    """Return the numbers of threads that are tried: the default, 1, 2, 4 and so on, and one for each core."""
    return [None, *sorted({2**i for i in range(cores.bit_length())} | {cores})]


def check(goal: str, rounds: int) -> None:
    """Refuse a goal that is unknown, and fewer rounds than an interval needs.

    Raises:
        InputError: so it is.
    """
    if goal not in GOALS:
        raise InputError(f"unknown goal {goal!r}; known are {', '.join(GOALS)}")
    if rounds < MIN_ROUNDS:
        raise InputError(f"rounds must be at least {MIN_ROUNDS}, got {rounds}")


def tune(
    files: Mapping[str, str | os.PathLike[str]],
    *,
    goal: str = "p50",
    batch_size: int = 1,
    provider: str = "cpu",
    allow_fallback: bool = False,
    rounds: int = 60,
    max_threads: int | None = None,
    before: Mapping[str, Any] | None = None,
    seed: int = 0,
    on_progress: OnProgress = lambda what, done, total: None,
) -> TuningReport:
    """Search the number of threads and the file that are fastest for a goal.

    1. Every file with every number of threads is measured in turn with the default, as in a bench.
    2. The fastest is measured against the default once more, with new sessions: only these figures are reported.

    This process should not have loaded another framework whose threads spin (ONNX Runtime issue 13808).

    Args:
        files: the file that is tuned, under the name "", and files that give the same answers under theirs.
        goal: a key of `smx.runtime.tune.goals.GOALS`.
        batch_size: examples a run.
        provider, allow_fallback: see `Session`.
        rounds: of each measurement, at least.
        max_threads: the largest number of threads that is tried; None is the number of cores.
        before: what `smx.timing.machine.machine` returned before this process began to work; None asks now.
        seed: of the inputs and of the order.
        on_progress: see `OnProgress`.

    Raises:
        InputError: there is no such goal, there are too few rounds, or a file can't be loaded or run.
    """
    check(goal, rounds)
    started, before = time.perf_counter(), before or machine()
    threads = thread_counts(min(max_threads or machine()["cores"] or 1, THREADS))
    tried = [Configuration(file=file, threads=each) for file in files for each in threads]
    by_name = {each.describe(): each for each in tried}
    default = DEFAULT.describe()

    def measure(names: list[str], rounds: int, what: str) -> tuple[Timings, tuple[str, ...]]:
        done, total = count(), prod(in_blocks(rounds))
        runners = {
            name: SessionRunner(files[each.file], provider, each.settings, allow_fallback=allow_fallback)
            for name, each in by_name.items()
            if name in names
        }
        report = measure_latency(
            runners,
            baseline=default,
            batch_sizes=(batch_size,),
            settings=Settings(),
            rounds=rounds,
            before=before,
            seed=seed,
            on_progress=lambda _: on_progress(what, next(done), total),
        )
        return report.timings, report.warnings

    timings, _ = measure(list(by_name), rounds, f"measuring {len(by_name)} configurations")
    measured = []
    for name in by_name:
        if name != default:
            figures = ratio(goal, timings, name, default, batch_size)
            measured.append(Measured(name=name, **dict(zip(("ratio", "low", "high"), figures, strict=True))))
    measured.sort(key=lambda one: one.ratio)
    best = measured[0].name
    if goal == "p99":
        burst = min(len(timings.bursts[name, batch_size][0][0]) for name in (best, default))
        rounds = max(rounds, -(-TAIL_RUNS // burst))
    timings, warnings = measure([default, best], rounds, "measuring the best against the default")
    found, low, high = ratio(goal, timings, best, default, batch_size)
    return TuningReport(
        goal=goal,
        batch_size=batch_size,
        provider=provider,
        measured=tuple(measured),
        best=by_name[best],
        rounds=prod(in_blocks(rounds)),
        level=LEVEL,
        ratio=found,
        low=low,
        high=high,
        default_figure=figure(goal, timings.runs(default, batch_size), batch_size),
        best_figure=figure(goal, timings.runs(best, batch_size), batch_size),
        machine={**machine(), "load": before["load"]},
        warnings=warnings,
        seconds=time.perf_counter() - started,
    )
