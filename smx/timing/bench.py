"""One bench: candidates timed in turn, with the baseline once more as a control, and the report of that."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from numpy.typing import NDArray

from smx.timing.interleave import in_blocks, time_in_turn
from smx.timing.intervals import LEVEL
from smx.timing.machine import machine
from smx.timing.report import TimingReport, rows, warnings
from smx.timing.runners import Runner


def run_bench(
    runners: Mapping[str, Runner],
    inputs: Mapping[int, Sequence[NDArray[Any]]],
    *,
    baseline: str,
    control: Runner | None = None,
    rounds: int = 60,
    rest: bool = False,
    before: Mapping[str, Any] | None = None,
    seed: int = 0,
    on_progress: Callable[[int], None] = lambda batch_size: None,
) -> TimingReport:
    """Time runners in turn and report their times and ratios; the caller stops the runners.

    Args:
        runners, inputs, rest, seed, on_progress: see `smx.timing.interleave.time_in_turn`.
        baseline: the candidate that ratios refer to.
        control: a second runner of the baseline, reported as `BASELINE again`; None measures none.
        rounds: at least this many in all, divided into blocks.
        before: what `machine()` returned before this process began to work; None asks now.
    """
    load = (before or machine())["load"]
    blocks, per_block = in_blocks(rounds)
    name = f"{baseline} again"
    while name in runners:
        name += " again"
    controls = {} if control is None else {name: control}
    timings = time_in_turn(
        {**runners, **controls}, inputs, blocks=blocks, rounds=per_block, rest=rest, seed=seed, on_progress=on_progress
    )
    now = machine()
    report = TimingReport(
        baseline=baseline,
        blocks=blocks,
        rounds=blocks * per_block,
        level=LEVEL,
        machine={**now, "load": load, "load_after": now["load"]},
        results=rows(timings, runners, baseline, inputs),
        control=rows(timings, controls, baseline, inputs),
        warnings=(),
        timings=timings,
    )
    return replace(report, warnings=tuple(warnings(report)))
