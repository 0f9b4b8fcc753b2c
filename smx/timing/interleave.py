"""Timing several candidates in turn, so that a change of the machine's speed affects all of them alike."""

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
"""Runs in a burst at most."""

WINDOW = 3
"""Bursts in a window of the warm-up; it ends when a window is not faster than the one before."""
STEADY = 0.02
"""A window is faster if its time is shorter by more than this share."""
MAX_WARM_UP = 12
"""Bursts of a warm-up at most."""

BLOCKS = 10
"""The rounds are divided into at most this many blocks; each block loads the candidates anew."""

Burst = NDArray[np.float64]
"""Microseconds of single runs that followed each other."""


@dataclass
class Timings:
    """Every measured time.

    Attributes:
        bursts: by candidate and batch size, then by block and round.
        starts: by candidate, the seconds to load it in each block.
        unsteady: by candidate and batch size, the number of blocks in which the warm-up reached its longest length
            while the candidate still became faster.
    """

    bursts: dict[tuple[str, int], list[list[Burst]]] = field(default_factory=dict)
    starts: dict[str, list[float]] = field(default_factory=dict)
    unsteady: Counter[tuple[str, int]] = field(default_factory=Counter)

    def medians(self, name: str, batch_size: int) -> NDArray[np.float64]:
        """Return the median of each burst, (blocks, rounds)."""
        return np.array([[np.median(burst) for burst in block] for block in self.bursts[name, batch_size]])

    def ratios(self, name: str, baseline: str, batch_size: int) -> NDArray[np.float64]:
        """Return the ratio of two candidates' medians in each round, (blocks, rounds)."""
        return self.medians(name, batch_size) / self.medians(baseline, batch_size)

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

    1. Each block loads every candidate anew: the place of its memory changes its speed, and more rounds with the same
       session would not average that out.
    2. In a block, for each batch size, every candidate is warmed up until it no longer becomes faster.
    3. In each round every candidate runs one short burst; the order is random.

    Args:
        runners: by name.
        inputs: by batch size, one array (B, *) for each argument.
        blocks: number of blocks.
        rounds: number of rounds in each block.
        rest: wait before each turn until the threads of this process are idle; see `smx.timing.settle`.
        seed: of the order.
        on_progress: called before each round with the batch size, `blocks * rounds` times for each.
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
    """Divide at least this many rounds into blocks; return the number of blocks and of rounds in each."""
    blocks = min(BLOCKS, rounds)
    return blocks, -(-rounds // blocks)


def _burst_length(runner: Runner) -> int:
    """Return the number of runs that fill a burst."""
    seconds = float(np.median(runner.time(5))) * 1e-6
    return max(1, min(MAX_BURST, round(BURST_SECONDS / max(seconds, 1e-9))))


def _warm_up(runner: Runner, length: int) -> bool:
    """Run bursts until they no longer become faster; return False if they still did after `MAX_WARM_UP`."""
    medians: list[float] = []
    while len(medians) < MAX_WARM_UP:
        medians.append(float(np.median(runner.time(length))))
        if len(medians) >= 2 * WINDOW:
            before, last = np.median(medians[-2 * WINDOW : -WINDOW]), np.median(medians[-WINDOW:])
            if last > (1 - STEADY) * before:
                return True
    return False
