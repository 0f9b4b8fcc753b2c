"""Timing several candidates in turn, so that the machine's moods hit all of them alike."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from smx.timing.runners import Runner
from smx.timing.settle import settle

BURST_SECONDS = 0.01
"""About how long one candidate runs before it is the next one's turn."""
MAX_BURST = 50

WINDOW = 3
"""Bursts whose medians are compared to tell whether a candidate still becomes faster."""
STEADY = 0.02
"""It does not, once the last window is less than this faster than the one before."""
MAX_WARM_UP = 12
"""So many bursts at most."""

BLOCKS = 10
"""Into so many blocks the rounds are divided; each begins with new sessions."""

Burst = NDArray[np.float64]
"""Microseconds of single runs that followed each other."""


@dataclass
class Timings:
    """What was measured.

    Attributes:
        bursts: for each candidate and batch size, by block and round.
        starts: for each candidate, seconds to load it, once a block.
        unsteady: in how many blocks a candidate still became faster when its warm-up was ended, by batch size.
    """

    bursts: dict[tuple[str, int], list[list[Burst]]] = field(default_factory=dict)
    starts: dict[str, list[float]] = field(default_factory=dict)
    unsteady: Counter[tuple[str, int]] = field(default_factory=Counter)

    def medians(self, name: str, batch_size: int) -> NDArray[np.float64]:
        """Return the median of each burst, (blocks, rounds)."""
        return np.array([[np.median(burst) for burst in block] for block in self.bursts[name, batch_size]])

    def runs(self, name: str, batch_size: int) -> NDArray[np.float64]:
        """Return the time of every run, (runs,)."""
        return np.concatenate([burst for block in self.bursts[name, batch_size] for burst in block])


def time_in_turn(
    runners: Mapping[str, Runner],
    inputs: Mapping[int, Sequence[NDArray[Any]]],
    *,
    blocks: int,
    rounds: int,
    rest: bool = False,
    seed: int = 0,
    on_progress: Callable[[int], None] = lambda batch_size: None,
) -> Timings:
    """Time runners in blocks of rounds.

    At the beginning of a block every model is loaded anew, since where its memory happens to lie makes a difference
    that no number of rounds would average out. Then, for each batch size, every candidate is warmed up until it is
    steady, and in each round runs a short burst, in a random order.

    Args:
        runners: by name.
        inputs: by batch size, one array for each argument.
        blocks, rounds: how many, and how many in each.
        rest: wait before each turn until no thread of this process works any more; see `smx.timing.settle`.
        seed: of the order.
        on_progress: called before each round, `blocks * rounds` times for each batch size.
    """
    random = np.random.default_rng(seed)
    timings = Timings(
        bursts={(name, size): [] for size in inputs for name in runners}, starts={name: [] for name in runners}
    )
    names = list(runners)
    lengths: dict[tuple[str, int], int] = {}
    for _ in range(blocks):
        for name in random.permutation(names):
            seconds = runners[name].start()
            timings.starts[name] += [] if seconds is None else [seconds]
        for size, arrays in inputs.items():
            for name in random.permutation(names):
                if rest:
                    settle()
                runners[name].prepare(arrays)
                if (name, size) not in lengths:
                    lengths[name, size] = _burst_length(runners[name])
                timings.unsteady[name, size] += not _warm_up(runners[name], lengths[name, size])
                timings.bursts[name, size].append([])
            for _ in range(rounds):
                on_progress(size)
                for name in random.permutation(names):
                    if rest:
                        settle()
                    timings.bursts[name, size][-1].append(runners[name].time(lengths[name, size]))
    return timings


def in_blocks(rounds: int) -> tuple[int, int]:
    """Return how many blocks there are for at least so many rounds, and how many rounds in each."""
    blocks = min(BLOCKS, rounds)
    return blocks, -(-rounds // blocks)


def _burst_length(runner: Runner) -> int:
    """Tell how many runs fill a burst."""
    seconds = float(np.median(runner.time(5))) * 1e-6
    return max(1, min(MAX_BURST, round(BURST_SECONDS / max(seconds, 1e-9))))


def _warm_up(runner: Runner, length: int) -> bool:
    """Run until it does not become faster any more; return whether it got there."""
    medians: list[float] = []
    while len(medians) < MAX_WARM_UP:
        medians.append(float(np.median(runner.time(length))))
        if len(medians) >= 2 * WINDOW:
            before, last = np.median(medians[-2 * WINDOW : -WINDOW]), np.median(medians[-WINDOW:])
            if last > (1 - STEADY) * before:
                return True
    return False
