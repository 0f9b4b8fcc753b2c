from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from itertools import cycle
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from smx.timing import bench
from smx.timing.bench import run_bench
from smx.timing.interleave import Timings, time_in_turn
from tests.timing.fakes import FakeRunner

QUIET = {"processor": "p", "cores": 4, "load": [0.0, 9.0, 9.0]}
INPUTS = {4: [np.ones(2)], 1: [np.ones(2)]}


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with nothing else to do, whatever runs beside the tests."""
    monkeypatch.setattr(bench, "machine", lambda: dict(QUIET))


class Timed(FakeRunner):
    """A runner whose runs take what a function says, in microseconds."""

    def __init__(self, microseconds: Callable[[], float]) -> None:
        super().__init__()
        self.microseconds = microseconds

    def time(self, length: int) -> NDArray[np.float64]:
        return np.full(length, self.microseconds())


def test_ratios_are_to_the_baseline_of_the_same_round() -> None:
    moods = cycle([1, 2, 4])
    mood = 1.0

    def on_progress(batch_size: int) -> None:
        nonlocal mood
        mood = next(moods)

    runners = {"slow": Timed(lambda: 3000 * mood), "relu": Timed(lambda: 1000 * mood)}
    control = Timed(lambda: 1500 * mood)
    report = run_bench(runners, INPUTS, baseline="relu", control=control, rounds=6, on_progress=on_progress)
    assert [(row.name, row.batch_size) for row in report.results] == [
        ("slow", 4), ("relu", 4), ("slow", 1), ("relu", 1),
    ]  # fmt: skip
    for row in report.results:
        expected = 3 if row.name == "slow" else 1
        assert row.ratio == row.ratio_low == row.ratio_high == expected
        assert row.p50 == expected * 2000, "of moods 1, 2 and 4"
        assert row.mean == pytest.approx(expected * 7000 / 3)
        assert row.throughput == pytest.approx(row.batch_size * 1e6 / row.mean)
    assert [(row.name, row.batch_size, row.ratio) for row in report.control] == [
        ("relu again", 4, 1.5), ("relu again", 1, 1.5),
    ]  # fmt: skip
    assert report.timings.ratios("relu", "slow", 4).tolist() == [[1 / 3]] * 6
    assert (report.baseline, report.blocks, report.rounds, report.level) == ("relu", 6, 6, 0.99)
    assert report.warnings[0] == "6 rounds are too few for intervals to rely on; expected at least 20"
    assert "batch 4: relu against itself measured 1.500" in report.warnings[1]


def test_the_control_has_a_name_of_its_own_or_is_left_out() -> None:
    runners = {"relu": Timed(lambda: 1000), "relu again": Timed(lambda: 3000)}
    report = run_bench(runners, INPUTS, baseline="relu", control=Timed(lambda: 1000), rounds=2)
    assert [(row.name, row.ratio) for row in report.results[:2]] == [("relu", 1), ("relu again", 3)]
    assert [(row.name, row.ratio) for row in report.control] == [("relu again again", 1)] * 2
    assert run_bench(runners, INPUTS, baseline="relu", rounds=2).control == ()


@pytest.mark.parametrize(("rounds", "blocks", "each"), [(60, 10, 6), (25, 10, 3), (10, 10, 1), (7, 7, 1), (1, 1, 1)])
def test_rounds_are_divided_into_blocks(rounds: int, blocks: int, each: int, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, Any]] = []

    def record(*arguments: Any, **options: Any) -> Timings:
        asked.append(options)
        return time_in_turn(*arguments, **options)

    monkeypatch.setattr(bench, "time_in_turn", record)
    seen: Counter[int] = Counter()
    runners = {"a": Timed(lambda: 1e6)}
    report = run_bench(
        runners, INPUTS, baseline="a", rounds=rounds, seed=3, on_progress=lambda size: seen.update([size])
    )
    (options,) = asked
    assert [options[key] for key in ("blocks", "rounds", "seed", "rest")] == [blocks, each, 3, False]
    assert (report.blocks, report.rounds) == (blocks, blocks * each)
    assert seen == {4: blocks * each, 1: blocks * each}
    assert report.timings.medians("a", 1).shape == (blocks, each)


def test_the_load_is_that_of_before() -> None:
    runners = {"a": Timed(lambda: 1e6)}
    report = run_bench(runners, INPUTS, baseline="a", rounds=20, before={"cores": 4, "load": [3.0, 0.0, 0.0]})
    assert report.machine == {**QUIET, "load": [3.0, 0.0, 0.0], "load_after": QUIET["load"]}
    assert report.warnings == ("the machine was busy before the measurement began: load 3.00 on 4 cores",)
    assert run_bench(runners, INPUTS, baseline="a", rounds=20).warnings == ()
