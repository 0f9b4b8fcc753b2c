"""The search, with runners whose speeds are made up: nothing here depends on how fast this machine is."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from smx.errors import InputError
from smx.runtime.settings import Settings
from smx.runtime.tune.goals import GOALS, figure, ratio, ratio_interval
from smx.runtime.tune.halving import HEAT
from smx.runtime.tune.search import TAIL_RUNS, Candidate, TuningReport, candidates, search, tune
from smx.timing import settle as settling
from smx.timing.interleave import Timings
from tests.runtime.fakes import PLUS_TWO, save

Times = Callable[[int], NDArray[np.float64]]
DEFAULT = Candidate()
INPUTS = [np.zeros((2, 3), np.float32)]


class Made:
    """Runners by candidate, whose times of runs (microseconds) a function makes up; remembers what was made."""

    def __init__(self, speed: Callable[[Candidate], Times], refused: Sequence[Candidate] = ()) -> None:
        self.speed, self.refused = speed, refused
        self.made: list[Candidate] = []
        self.running: list[Candidate] = []

    def __call__(self, candidate: Candidate) -> Runner:
        self.made.append(candidate)
        self.running.append(candidate)
        return Runner(self, candidate)


class Runner:
    def __init__(self, race: Made, candidate: Candidate) -> None:
        self.race, self.candidate, self.times = race, candidate, race.speed(candidate)

    def start(self) -> float | None:
        return 0.001

    def prepare(self, inputs: Sequence[NDArray[Any]]) -> None:
        assert inputs is INPUTS
        if self.candidate in self.race.refused:
            raise InputError("it does not go with this provider")

    def time(self, length: int) -> NDArray[np.float64]:
        return self.times(length)

    def stop(self) -> None:
        self.race.running.remove(self.candidate)


def noisy(microseconds: Callable[[Candidate], float], noise: float = 0.05, seed: int = 0) -> Callable[..., Times]:
    """Every burst is disturbed as a whole, by about so much."""
    random = np.random.default_rng(seed)
    return lambda candidate: lambda length: np.full(length, microseconds(candidate)) * random.lognormal(0, noise)


def of(settings: Sequence[Settings]) -> list[Candidate]:
    return [Candidate(settings=one) for one in settings]


def test_the_candidates() -> None:
    for cores, threads in {1: [1], 2: [1, 2], 6: [1, 2, 4, 6], 8: [1, 2, 4, 8]}.items():
        default, *others = candidates(cores)
        assert default == Settings()
        assert sorted({one.threads or 0 for one in others}) == threads
        assert len(set(others)) == len(others) == 3 + 12 * (len(threads) - 1)
    alone = [one for one in candidates(4) if one.threads == 1]
    assert {(one.spinning, one.execution_mode) for one in alone} == {(False, "sequential")}
    assert {one.optimization for one in alone} == {"all", "extended", "basic"}


@pytest.mark.parametrize("place", [1, 7, 20, 50])
def test_the_best_is_found_and_measured(place: int) -> None:
    tried = [Candidate(settings=one, file=file) for file in ("", "sorted") for one in candidates(4)]
    best = tried[place]
    speeds = {one: 100 + (i * 37) % 50 for i, one in enumerate(tried)} | {DEFAULT: 100, best: 80}
    made = Made(noisy(speeds.__getitem__))
    report = search(tried, made, INPUTS, batch_size=2, seed=place)
    assert (report.best, report.winner, report.kept_default) == (best, best, False)
    assert report.low < 0.8 < report.high < 0.9
    assert report.gain["ratio"] == report.ratio == pytest.approx(0.8, abs=0.02)
    assert [report.default_figure, report.best_figure] == pytest.approx([100, 80], 0.02)
    assert report.rounds == 60
    assert {one.name for one in report.measured} == {one.describe() for one in tried if one != DEFAULT}
    assert report.measured[0].name == best.describe()
    assert not made.running, "every runner was stopped"
    content = json.loads(json.dumps(report.to_dict()))
    assert content["winner"]["settings"]["threads"] == best.settings.threads


def test_each_candidate_is_timed_with_the_default_and_few_are_loaded_at_a_time() -> None:
    tried = of(candidates(4))
    made = Made(noisy(lambda one: 100.0 if one == DEFAULT else 90.0 + tried.index(one)))
    report = search(tried, made, INPUTS)
    assert made.made[: len(tried)] == tried, "each was tried once"
    heats: list[list[Candidate]] = []
    for one in made.made[len(tried) :]:
        if one == DEFAULT:
            heats.append([])
        heats[-1].append(one)
    sizes = [len(heat) - 1 for heat in heats]
    assert sizes == [8, 8, 8, 3, 8, 6, 7, 4, 2, 1]  # 27, 14, 7, 4, 2, and the last measurement
    assert max(sizes) <= HEAT
    assert heats[-1] == [DEFAULT, report.best]
    assert {one.stage for one in report.measured} == {1, 2, 3, 4, 5}


@pytest.mark.parametrize("goal", list(GOALS))
@pytest.mark.parametrize("seed", range(4))
def test_the_default_stays_where_nothing_is_better(goal: str, seed: int) -> None:
    """All are equal, in a noise of 30 %."""
    made = Made(noisy(lambda one: 100.0, 0.3, seed))
    report = search(of(candidates(2)), made, INPUTS, goal=goal, seed=seed)
    assert report.kept_default
    assert report.winner == DEFAULT
    assert report.low < 1 < report.high
    assert [report.gain[key] for key in ("ratio", "low", "high")] == [1, 1, 1]


def test_what_chose_a_candidate_is_not_believed() -> None:
    """One candidate is twice as fast while it is chosen, and slower than the default ever after."""
    tried = of(candidates(2))
    lucky = tried[4]
    last: list[int] = []

    def speed(one: Candidate) -> float:
        return 100 if one != lucky else 130 if last else 50

    def progress(what: str, done: int, total: int) -> None:
        if "against the default" in what:
            last.append(done)

    report = search(tried, Made(noisy(speed)), INPUTS, on_progress=progress)
    assert report.best == lucky
    assert report.measured[0].ratio == pytest.approx(0.5, 0.1)
    assert report.ratio == pytest.approx(1.3, 0.1)
    assert report.winner == DEFAULT
    assert last == list(range(60))


def test_a_gain_within_the_interval_is_none() -> None:
    tried = of(candidates(1))
    for better, kept in {98: True, 60: False}.items():
        speeds = dict.fromkeys(tried, 120) | {DEFAULT: 100, tried[2]: better}
        report = search(tried, Made(noisy(speeds.__getitem__, 0.3)), INPUTS)
        assert report.kept_default == kept


TAILS: dict[str, tuple[float, float, float]] = {  # microseconds, how often it takes longer, and how long then
    "default": (100, 0.02, 200),
    "middle": (80, 0.05, 1000),
    "tail": (95, 0, 95),
    "mean": (90, 0.02, 150),
}


@pytest.mark.parametrize(("goal", "wins"), [("p50", "middle"), ("p99", "tail"), ("throughput", "mean")])
def test_each_goal_has_a_winner_of_its_own(goal: str, wins: str) -> None:
    names = list(TAILS)
    tried = [Candidate(), *(Candidate(file=name) for name in names[1:])]
    random = np.random.default_rng(0)

    def speed(candidate: Candidate) -> Times:
        usual, often, slow = TAILS[candidate.file or "default"]
        return lambda length: np.where(random.random(length) < often, slow, usual) * random.lognormal(0, 0.01, length)

    report = search(tried, Made(speed), INPUTS, goal=goal, batch_size=4, rounds=100)
    assert report.winner.file == wins
    figures: dict[str, list[float]] = {
        "p50": [100, 80],
        "p99": [200, 95],
        "throughput": [4e6 / 102, 4e6 / 91.2],  # examples a second
    }
    expected = figures[goal]
    assert [report.default_figure, report.best_figure] == pytest.approx(expected, 0.05)
    truth = expected[0] / expected[1] if goal == "throughput" else expected[1] / expected[0]
    assert report.low <= report.ratio <= report.high < 1
    assert report.ratio == pytest.approx(truth, 0.05)


def test_a_99_percent_quantile_has_enough_runs_behind_it() -> None:
    for goal, rounds in {"p50": 60, "p99": TAIL_RUNS // 2}.items():
        report = search(of(candidates(1)), Made(noisy(lambda one: 5000.0)), INPUTS, goal=goal)
        assert report.measured[0].burst == 2
        assert report.rounds == rounds


def test_what_cant_be_run_is_left_out() -> None:
    tried = of(candidates(2))
    speeds = {one: 100 - 10 * min(i, 9) for i, one in enumerate(tried)}
    made = Made(noisy(speeds.__getitem__), refused=tried[5:])
    report = search(tried, made, INPUTS)
    assert report.best == tried[4]
    assert report.refused == {one.describe(): "it does not go with this provider" for one in tried[5:]}
    assert not made.running
    with pytest.raises(InputError, match="nothing can be tuned: it does not go"):
        search(tried, Made(noisy(speeds.__getitem__), refused=tried[1:]), INPUTS)
    with pytest.raises(InputError, match=r"^it does not go with"):
        search(tried, made := Made(noisy(speeds.__getitem__), refused=[DEFAULT]), INPUTS)
    assert not made.running


def test_bad_wishes() -> None:
    made = Made(noisy(lambda one: 1.0))
    with pytest.raises(InputError, match="unknown goal 'p95'; known are p50, p99, throughput"):
        search(of(candidates(1)), made, INPUTS, goal="p95")
    with pytest.raises(InputError, match="rounds must be at least 20, got 19"):
        search(of(candidates(1)), made, INPUTS, rounds=19)
    with pytest.raises(InputError, match="there is one candidate alone"):
        search([DEFAULT], made, INPUTS)


def test_the_ratios_by_hand() -> None:
    ours = [[np.array([1.0, 3, 9]), np.array([2.0, 2, 2])], [np.array([4.0, 8, 6]), np.array([1.0, 1, 40])]]
    theirs = [[np.array([2.0, 6]), np.array([4.0, 2])], [np.array([5.0, 5]), np.array([1.0, 3])]]
    timings = Timings(bursts={("a", 1): ours, ("b", 1): theirs})
    assert ratio("p50", timings, "a", "b", 1) == np.median([3 / 4, 2 / 3, 6 / 5, 1 / 2])
    everything = [np.concatenate([burst for block in bursts for burst in block]) for bursts in (ours, theirs)]
    mean = everything[0].mean() / everything[1].mean()
    assert ratio("throughput", timings, "a", "b", 1) == pytest.approx(mean)
    tail = np.quantile(everything[0], 0.99) / np.quantile(everything[1], 0.99)
    assert ratio("p99", timings, "a", "b", 1) == pytest.approx(tail)
    for goal in GOALS:
        low, high = ratio_interval(goal, timings, "a", "b", 1)
        assert low <= ratio(goal, timings, "a", "b", 1) <= high
        assert ratio_interval(goal, timings, "a", "a", 1) == (1, 1), "rounds are resampled with both in them"
    runs = np.array([10.0, 20, 60])
    assert [figure(goal, runs, 3) for goal in GOALS] == pytest.approx([20, 59.2, 3e6 / 30])


def test_a_real_search(tmp_path: Path) -> None:
    files = {"": save(tmp_path / "a.onnx"), "other": save(tmp_path / "b.onnx", PLUS_TWO)}
    stages: list[str] = []
    report: TuningReport = tune(
        files, batch_size=3, max_threads=1, rounds=20, on_progress=lambda what, done, total: stages.append(what)
    )
    assert len(report.measured) == 7
    assert {one.name.split(",")[0] for one in report.measured if "other" in one.name} == {"other"}
    assert 0 < report.low <= report.ratio <= report.high
    assert report.machine["onnxruntime"]
    assert stages[0] == "stage 1, candidates: 7"
    with pytest.raises(InputError, match="does not exist"):
        tune({"": tmp_path / "none.onnx"})


def test_waiting_until_all_threads_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads take 2 ms of each 2 ms, then 1, then none; or never rest."""
    now, used = [0.0], [0.0]
    shares = [1.0, 1.0, 0.5, 0.0, 1.0]

    def sleep(seconds: float) -> None:
        now[0] += seconds
        used[0] += seconds * shares.pop(0)

    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(time, "process_time", lambda: used[0])
    monkeypatch.setattr(time, "sleep", sleep)
    settling.settle()
    assert shares == [1.0]
    shares[:] = [1.0] * 1000
    settling.settle()
    assert 1000 - len(shares) == pytest.approx(settling.LIMIT / settling.WINDOW, abs=1)
