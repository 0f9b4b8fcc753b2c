from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import chain, count, groupby, repeat
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from smx.timing.interleave import Timings, time_in_turn

Event = tuple[str, str, Any]
INPUTS = {1: [np.zeros((1, 2))], 8: [np.zeros((8, 2))]}


class Scripted:
    """A runner that records what it is told, and whose bursts take the times of a script, in microseconds a run."""

    def __init__(self, name: str, log: list[Event], script: Callable[[], Iterator[float]]) -> None:
        self.name, self.log, self.script = name, log, script

    def start(self) -> float | None:
        self.log.append((self.name, "start", None))
        return None if self.name == "loaded" else 0.25

    def prepare(self, inputs: Sequence[NDArray[Any]]) -> None:
        self.log.append((self.name, "prepare", inputs))
        self.times = self.script()

    def time(self, length: int) -> NDArray[np.float64]:
        self.log.append((self.name, "time", length))
        return np.full(length, next(self.times))

    def stop(self) -> None:
        self.log.append((self.name, "stop", None))


def steady(microseconds: float = 1000) -> Callable[[], Iterator[float]]:
    return lambda: repeat(microseconds)


def measure(
    scripts: dict[str, Callable[[], Iterator[float]]], *, blocks: int = 3, rounds: int = 5, **options: Any
) -> tuple[Timings, list[Event]]:
    log: list[Event] = []
    runners = {name: Scripted(name, log, script) for name, script in scripts.items()}
    timings = time_in_turn(
        runners,
        options.pop("inputs", INPUTS),
        blocks=blocks,
        rounds=rounds,
        on_progress=lambda size: log.append(("", "progress", size)),
        **options,
    )
    return timings, log


def phases(log: list[Event]) -> list[tuple[str, list[Event]]]:
    """Cut a log where a phase begins: `start` (loading), `prepare` (warming up), `progress` (a round)."""
    found: list[tuple[str, list[Event]]] = []
    for event in log:
        kind = event[1]
        if (
            kind == "progress"
            or (kind == "start" and (not found or found[-1][0] != kind))
            or (kind == "prepare" and found[-1][0] != kind)
        ):
            found.append((kind, []))
        if kind != "progress":
            found[-1][1].append(event)
    return found


def test_loading_then_warming_up_then_rounds_in_which_each_has_its_turn() -> None:
    names = {"a", "b", "c"}
    _, log = measure(dict.fromkeys(sorted(names), steady()))
    found = phases(log)
    assert [kind for kind, _ in found] == (["start"] + (["prepare"] + ["progress"] * 5) * 2) * 3
    assert [size for _, kind, size in log if kind == "progress"] == ([1] * 5 + [8] * 5) * 3
    for kind, events in found:
        if kind == "start":
            assert sorted(events) == [(name, "start", None) for name in sorted(names)]
        elif kind == "progress":
            assert sorted(events) == [(name, "time", 10) for name in sorted(names)]
    prepared = [[inputs for _, kind, inputs in events if kind == "prepare"] for _, events in found]
    expected = [INPUTS[1], INPUTS[8]] * 3
    assert [part for part in prepared if part] == [[inputs] * 3 for inputs in expected]
    # A candidate is warmed up on the inputs that it has just been given, before the next one is prepared.
    for kind, events in found:
        owners = [name for name, _, _ in events]
        if kind == "prepare":
            assert [name for name, _ in groupby(owners)] == list(dict.fromkeys(owners))
            assert set(owners) == names


def test_the_order_is_random_and_told_by_the_seed() -> None:
    scripts = dict.fromkeys("abc", steady())
    orders = [
        tuple(name for name, _, _ in events)
        for kind, events in phases(measure(scripts, rounds=20)[1])
        if kind == "progress"
    ]
    assert len(set(orders)) == 6, "every order of three occurs"
    first = [order[0] for order in orders]
    assert all(first.count(name) > len(first) / 6 for name in "abc")
    for kind in ("start", "prepare"):
        parts = [events for found, events in phases(measure(scripts, blocks=8)[1]) if found == kind]
        assert len({tuple(dict.fromkeys(name for name, _, _ in events)) for events in parts}) > 1
    again, other = (measure(scripts, seed=seed)[1] for seed in (0, 1))
    assert [event[:2] for event in again] == [event[:2] for event in measure(scripts)[1]]
    assert [event[:2] for event in again] != [event[:2] for event in other]


@pytest.mark.parametrize(
    ("microseconds", "runs"), [(0, 50), (1, 50), (190, 50), (250, 40), (1000, 10), (3000, 3), (1e4, 1), (1e6, 1)]
)
def test_a_burst_takes_about_ten_milliseconds(microseconds: float, runs: int) -> None:
    timings, log = measure({"a": steady(microseconds)}, inputs={1: INPUTS[1]}, blocks=2)
    lengths = [length for _, kind, length in log if kind == "time"]
    assert lengths[0] == 5, "it is measured once"
    assert set(lengths[1:]) == {runs}
    assert {len(burst) for block in timings.bursts["a", 1] for burst in block} == {runs}


WARM_UPS = {  # the medians of the bursts, how many are run, whether they got steady
    "slower": ([100, 100, 100, 110, 120, 130], 6, True),
    "1 % in a window": ([100, 100, 100, 99, 99, 99], 6, True),
    "3 % in a window": ([100, 100, 100, 97, 97, 97, 97], 8, True),
    "one burst is disturbed": ([100, 100, 100, 500, 100, 100], 6, True),
    "steady at the cap": ([100, 90, 81, 73, 66, 60, 54, 48, 48], 12, True),
    "steady too late": ([100, 90, 81, 73, 66, 60, 54, 48, 43, 43], 12, False),
    "never steady": ([100 * 0.9**i for i in range(40)], 12, False),
}


@pytest.mark.parametrize(("medians", "bursts", "got_steady"), WARM_UPS.values(), ids=list(WARM_UPS))
def test_warming_up_ends_when_it_is_no_more_faster(medians: list[float], bursts: int, got_steady: bool) -> None:
    def script() -> Iterator[float]:
        return chain((50 * value for value in medians), repeat(50 * medians[-1]))

    scripts = {"a": lambda: chain([5000], script()), "b": steady()}
    timings, log = measure(scripts, inputs={1: INPUTS[1]}, blocks=1, rounds=2)
    runs = [length for name, kind, length in log if (name, kind) == ("a", "time")]
    assert runs == [5] + [2] * (bursts + 2)
    assert timings.unsteady["a", 1] == (not got_steady)
    assert timings.unsteady["b", 1] == 0


def test_each_block_in_which_it_stayed_unsteady_counts() -> None:
    falling = [100 * 0.95**i for i in range(40)]
    prepared = count()

    def script() -> Iterator[float]:
        return chain(iter(falling)) if next(prepared) in (0, 1, 3) else repeat(100.0)

    timings, _ = measure({"a": script}, blocks=3)  # batch sizes 1 and 8 by turns
    assert timings.unsteady == {("a", 1): 1, ("a", 8): 2}


def test_what_is_kept() -> None:
    times = count(1000)
    timings, log = measure({"a": lambda: (float(t) for t in times), "loaded": steady(500)}, blocks=2, rounds=3)
    assert timings.starts == {"a": [0.25, 0.25], "loaded": []}
    assert set(timings.bursts) == {("a", 1), ("a", 8), ("loaded", 1), ("loaded", 8)}
    # "a" tells the number of each of its bursts: those of rounds are kept, by block.
    bursts = [(kind == "progress", name == "a") for kind, events in phases(log) for name, what, _ in events
              if what == "time"]  # fmt: skip
    kept = [1000 + i for i, is_round in enumerate(is_round for is_round, ours in bursts if ours) if is_round]
    assert len(kept) == 2 * 2 * 3
    expected = np.array(kept).reshape(2, 2, 3)  # block, batch size, round
    np.testing.assert_array_equal(timings.medians("a", 1), expected[:, 0])
    np.testing.assert_array_equal(timings.medians("a", 8), expected[:, 1])
    assert timings.runs("loaded", 8).tolist() == [500] * (2 * 3 * 20)
