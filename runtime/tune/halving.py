"""Finding the fastest of many candidates by successive halving: most rounds go to those that may be the best."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import count
from typing import Any

import numpy as np
from numpy.typing import NDArray

from smx.errors import InputError
from smx.runtime.tune.goals import ratio
from smx.timing.interleave import Timings, time_in_turn
from smx.timing.runners import Runner

HEAT = 8
"""So many candidates, and the default, are loaded at the same time."""
ROUNDS = 8
"""In each block; the first stage has one block, the next two, and so on."""

OnProgress = Callable[[str, int, int], None]
"""Called before each round with what is being done, how many rounds of it are done, and of how many."""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """How a candidate did in the selection.

    Attributes:
        name: the candidate's.
        stage: the last one that it took part in, from 1; half of the candidates reach the next.
        ratio: of the goal's statistic to the default's, in that stage. A hint only: the smallest of many such figures
            is mostly luck.
        burst: how many runs it and the default were timed for in each round, whichever is less.
    """

    name: str
    stage: int
    ratio: float
    burst: int


@dataclass(frozen=True, kw_only=True)
class Race:
    """Candidates that are timed in turn with a default.

    Attributes:
        default: name of the default.
        make: makes the runner of the candidate of a name.
        inputs: of each run, one array (B, *) for each argument.
        goal: a key of `smx.runtime.tune.goals.GOALS`.
        batch_size: examples a run.
        random: decides the order.
        on_progress: see `OnProgress`.
    """

    default: str
    make: Callable[[str], Runner]
    inputs: Sequence[NDArray[Any]]
    goal: str
    batch_size: int
    random: np.random.Generator
    on_progress: OnProgress

    def refusals(self, names: Sequence[str]) -> dict[str, str]:
        """Load and run each candidate once; return those that can't be, and why.

        Raises:
            InputError: the default can't be.
        """
        refused = {}
        for name in (self.default, *names):
            with ExitStack() as stack:
                runner = self._made(name, stack)
                try:
                    runner.start()
                    runner.prepare(self.inputs)
                except InputError as error:
                    if name == self.default:
                        raise
                    refused[name] = str(error)
        return refused

    def time(self, names: Sequence[str], blocks: int, rounds: int, on_round: Callable[[], None]) -> Timings:
        """Time candidates and the default in turn, with sessions that are new for each of the blocks."""
        with ExitStack() as stack:
            return time_in_turn(
                {name: self._made(name, stack) for name in (self.default, *names)},
                {self.batch_size: self.inputs},
                blocks=blocks,
                rounds=rounds,
                rest=True,
                seed=int(self.random.integers(2**32)),
                on_progress=lambda _: on_round(),
            )

    def select(self, names: Sequence[str]) -> list[Measured]:
        """Run the stages until the best candidate has won the last one; return all, the best one first."""
        field, stage = list(names), 0
        found: dict[str, Measured] = {}
        while not found or len(field) > 1:
            stage += 1
            for measured in self._stage(field, stage):
                found[measured.name] = measured
            field = sorted(field, key=lambda name: found[name].ratio)[: (len(field) + 1) // 2]
        return sorted(found.values(), key=lambda one: (-one.stage, one.ratio))

    def _stage(self, field: Sequence[str], stage: int) -> list[Measured]:
        """Time all that are still in the field, as many at a time as there is room for, each time with the default."""
        heats = [field[first : first + HEAT] for first in range(0, len(field), HEAT)]
        what, total, done = f"stage {stage}, candidates: {len(field)}", len(heats) * stage * ROUNDS, count()
        found = []
        for heat in heats:
            timings = self.time(heat, stage, ROUNDS, lambda: self.on_progress(what, next(done), total))
            for name in heat:
                figure = ratio(self.goal, timings, name, self.default, self.batch_size)
                burst = min(len(timings.bursts[each, self.batch_size][0][0]) for each in (name, self.default))
                found.append(Measured(name=name, stage=stage, ratio=figure, burst=burst))
        return found

    def _made(self, name: str, stack: ExitStack) -> Runner:
        runner = self.make(name)
        stack.callback(runner.stop)
        return runner
