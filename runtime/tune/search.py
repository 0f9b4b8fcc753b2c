"""Finding the settings of a session, and the file, that are fastest for a goal on this machine."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import count
from typing import Any

import numpy as np
from numpy.typing import NDArray

from smx.errors import InputError
from smx.runtime.latency.runner import SessionRunner
from smx.runtime.session import Session
from smx.runtime.settings import EXECUTION_MODES, Settings
from smx.runtime.tune.goals import check_goal, figure, ratio, ratio_interval
from smx.runtime.tune.halving import Measured, OnProgress, Race
from smx.timing.interleave import in_blocks
from smx.timing.intervals import LEVEL, MIN_ROUNDS
from smx.timing.machine import machine
from smx.timing.runners import Runner

OPTIMIZATION_LEVELS = ("all", "extended", "basic")

TAIL_RUNS = 1000
"""So many runs at least lie behind a 99 % quantile."""


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """Settings for a session of a file.

    Attributes:
        settings: of the session.
        file: which of the files; "" is the one to be tuned.
    """

    settings: Settings = field(default_factory=Settings)
    file: str = ""

    def describe(self) -> str:
        """Return it in words that fit a table."""
        return f"{self.file}, {self.settings.describe()}" if self.file else self.settings.describe()


@dataclass(frozen=True, kw_only=True)
class TuningReport:
    """What the search found, and what a measurement of its own said of that.

    Attributes:
        goal: `p50`, `p99` or `throughput`.
        batch_size: examples a run.
        provider: see `smx.runtime.providers.PROVIDERS`.
        measured: all candidates but the default, the best one first.
        refused: candidates that can't be run, and why.
        best: the one that the search chose.
        rounds: in which it was then measured against the default.
        level: of the confidence interval.
        ratio, low, high: the best one's statistic divided by the default's in those rounds: of the time of a run, so
            below 1 is faster, for throughput too; and the interval.
        default_figure, best_figure: the statistic: microseconds a run, or examples a second for throughput.
        machine: see `smx.timing.machine.machine`, taken before.
        seconds: duration.
    """

    goal: str
    batch_size: int
    provider: str
    measured: tuple[Measured, ...]
    refused: dict[str, str]
    best: Candidate
    rounds: int
    level: float
    ratio: float
    low: float
    high: float
    default_figure: float
    best_figure: float
    machine: dict[str, Any]
    seconds: float

    @property
    def kept_default(self) -> bool:
        """Whether it is not certain that the best candidate is faster than the default."""
        return not self.high < 1

    @property
    def winner(self) -> Candidate:
        """What is to be used: the best candidate if it is certainly faster, else the default."""
        return Candidate() if self.kept_default else self.best

    @property
    def gain(self) -> dict[str, float]:
        """The winner's ratio to the default with its interval, which is 1 for the default itself."""
        ratio, low, high = (1.0, 1.0, 1.0) if self.kept_default else (self.ratio, self.low, self.high)
        return {"ratio": ratio, "low": low, "high": high, "level": self.level, "rounds": self.rounds}

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        return {**asdict(self), "kept_default": self.kept_default, "winner": asdict(self.winner)}


def candidates(cores: int) -> list[Settings]:
    """Return the settings that are tried, the default first.

    Threads are 1, 2, 4 and so on, and the number of cores. A single thread never spins, nor runs operators in parallel.
    """
    threads = sorted({2**i for i in range(cores.bit_length())} | {cores})
    return [
        Settings(),
        *(
            Settings(threads=count, spinning=spinning, execution_mode=mode, optimization=level)
            for count in threads
            for mode in EXECUTION_MODES
            for spinning in (True, False)
            for level in OPTIMIZATION_LEVELS
            if count > 1 or (mode == "sequential" and not spinning)
        ),
    ]


def tune(
    files: Mapping[str, str | os.PathLike[str]],
    *,
    goal: str = "p50",
    batch_size: int = 1,
    provider: str = "cpu",
    allow_fallback: bool = False,
    rounds: int = 60,
    max_threads: int | None = None,
    seed: int = 0,
    on_progress: OnProgress = lambda what, done, total: None,
) -> TuningReport:
    """Search the settings, and the file, that are fastest for a goal, and measure them against the default.

    The process should not have loaded another framework whose threads spin (ONNX Runtime issue 13808).

    Args:
        files: the file to be tuned under the name "", and others that give the same answers under theirs.
        goal: a key of `smx.runtime.tune.goals.GOALS`.
        batch_size: examples a run.
        provider, allow_fallback: see `Session`.
        rounds: of the measurement against the default, at least.
        max_threads: of the candidates; None is the number of cores.
        seed: of the inputs and of the order.
        on_progress: see `OnProgress`.

    Raises:
        InputError: a bad goal or number of rounds, or a file that can't be loaded or run by default.
    """
    given = Session(files[""], provider, settings=Settings(), allow_fallback=allow_fallback)
    inputs = given.random_inputs(batch_size, seed)
    del given
    settings = candidates(max_threads or machine()["cores"] or 1)
    return search(
        [Candidate(settings=each, file=file) for file in sorted(files) for each in settings],
        lambda candidate: SessionRunner(
            files[candidate.file], provider, candidate.settings, allow_fallback=allow_fallback
        ),
        inputs,
        goal=goal,
        batch_size=batch_size,
        provider=provider,
        rounds=rounds,
        seed=seed,
        on_progress=on_progress,
    )


def search(
    tried: Sequence[Candidate],
    make: Callable[[Candidate], Runner],
    inputs: Sequence[NDArray[Any]],
    *,
    goal: str = "p50",
    batch_size: int = 1,
    provider: str = "cpu",
    rounds: int = 60,
    seed: int = 0,
    on_progress: OnProgress = lambda what, done, total: None,
) -> TuningReport:
    """Choose the best of many candidates, then measure that one against the default.

    The smallest of many noisy figures is smaller than what it stands for, so none of those that chose is believed: what
    counts comes from new rounds, with new sessions of the best candidate and the default alone.

    Args:
        tried: the candidates, the default first.
        make: makes the runner of a candidate.
        inputs: of each run, one array (B, *) for each argument.
        goal, batch_size, provider, rounds, seed, on_progress: see `tune`.

    Raises:
        InputError: a bad goal or number of rounds, or the default can't be run, or nothing but the default can.
    """
    check_goal(goal)
    if rounds < MIN_ROUNDS:
        raise InputError(f"rounds must be at least {MIN_ROUNDS}, got {rounds}")
    started, before = time.perf_counter(), machine()
    default, *others = by_name = {candidate.describe(): candidate for candidate in tried}
    race = Race(
        default=default,
        make=lambda name: make(by_name[name]),
        inputs=inputs,
        goal=goal,
        batch_size=batch_size,
        random=np.random.default_rng(seed),
        on_progress=on_progress,
    )
    refused = race.refusals(others)
    usable = [name for name in others if name not in refused]
    if not usable:
        raise InputError(f"nothing can be tuned: {next(iter(refused.values()), 'there is one candidate alone')}")
    measured = race.select(usable)
    best = measured[0].name
    if goal == "p99":
        rounds = max(rounds, -(-TAIL_RUNS // measured[0].burst))
    (blocks, per_block), done = in_blocks(rounds), count()
    timings = race.time(
        [best],
        blocks,
        per_block,
        lambda: on_progress("the best against the default", next(done), blocks * per_block),
    )
    low, high = ratio_interval(goal, timings, best, default, batch_size)
    return TuningReport(
        goal=goal,
        batch_size=batch_size,
        provider=provider,
        measured=tuple(measured),
        refused=refused,
        best=by_name[best],
        rounds=blocks * per_block,
        level=LEVEL,
        ratio=ratio(goal, timings, best, default, batch_size),
        low=low,
        high=high,
        default_figure=figure(goal, timings.runs(default, batch_size), batch_size),
        best_figure=figure(goal, timings.runs(best, batch_size), batch_size),
        machine=before,
        seconds=time.perf_counter() - started,
    )
