"""The search, with runners whose speeds are made up: nothing here depends on how fast this machine is."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from smx.errors import InputError
from smx.runtime.latency.runner import SessionRunner
from smx.runtime.settings import Settings
from smx.runtime.tune.goals import GOALS, figure, ratio
from smx.runtime.tune.search import DEFAULT, TAIL_RUNS, Configuration, TuningReport, thread_counts, tune
from smx.timing import interleave
from smx.timing.interleave import Timings
from tests.runtime.fakes import PLUS_TWO, save

Pretend = Callable[..., list[Configuration]]


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    return {"": save(tmp_path / "a.onnx"), "sorted": save(tmp_path / "sorted.onnx", PLUS_TWO)}


@pytest.fixture
def pretend(monkeypatch: pytest.MonkeyPatch) -> Pretend:
    """Let runs take what a function says, in microseconds, with noise that a burst shares; return what is timed."""
    monkeypatch.setattr(interleave, "settle", lambda: None)

    def times(speed: Callable[[Configuration], float], noise: float = 0.03) -> list[Configuration]:
        random = np.random.default_rng(0)
        timed: list[Configuration] = []

        def time(runner: SessionRunner, length: int) -> NDArray[np.float64]:
            stem, settings = Path(runner.path).stem, runner.session.settings
            timed.append(Configuration(file="" if stem == "a" else stem, threads=settings.threads))
            return np.full(length, speed(timed[-1])) * random.lognormal(0, noise)

        monkeypatch.setattr(SessionRunner, "time", time)
        return timed

    return times


def test_numbers_of_threads() -> None:
    for cores, threads in {1: [1], 2: [1, 2], 6: [1, 2, 4, 6], 8: [1, 2, 4, 8]}.items():
        assert thread_counts(cores) == [None, *threads]


def test_configurations() -> None:
    assert (DEFAULT.settings, DEFAULT.describe()) == (Settings(), "all threads")
    assert Configuration(threads=1).describe() == "1 thread"
    best = Configuration(file="sorted", threads=2)
    assert (best.settings, best.describe()) == (Settings(threads=2), "sorted, 2 threads")


@pytest.mark.parametrize("best", [Configuration(threads=1), Configuration(file="sorted", threads=2)])
def test_the_best_is_found_and_measured_again(best: Configuration, files: dict[str, Path], pretend: Pretend) -> None:
    timed = pretend(lambda each: 80 if each == best else 100)
    stages: dict[str, int] = {}
    report = tune(
        files, batch_size=2, max_threads=2, on_progress=lambda what, done, total: stages.update({what: total - done})
    )
    names = {"1 thread", "2 threads", "sorted, all threads", "sorted, 1 thread", "sorted, 2 threads"}
    assert {one.name for one in report.measured} == names
    assert [one.ratio for one in report.measured] == sorted(one.ratio for one in report.measured)
    assert all(one.low <= one.ratio <= one.high for one in report.measured)
    assert report.measured[0].name == best.describe()
    assert (report.best, report.winner, report.kept_default) == (best, best, False)
    assert report.low < 0.8 < report.high < 0.9
    assert report.gain["ratio"] == report.ratio == pytest.approx(0.8, abs=0.03)
    assert [report.default_figure, report.best_figure] == pytest.approx([100, 80], 0.03)
    assert report.rounds == 60
    assert stages == {"measuring 6 configurations": 1, "measuring the best against the default": 1}
    assert set(timed[-120:]) == {DEFAULT, best}, "in the end"
    content = json.loads(json.dumps(report.to_dict()))
    assert content["winner"] == {"file": best.file, "threads": best.threads}


@pytest.mark.parametrize("goal", list(GOALS))
def test_the_default_stays_where_nothing_is_better(goal: str, files: dict[str, Path], pretend: Pretend) -> None:
    """All are equal, in a noise of 30 %."""
    pretend(lambda each: 100.0, 0.3)
    report = tune(files, goal=goal, max_threads=2)
    assert (report.kept_default, report.winner) == (True, DEFAULT)
    assert report.low < 1 < report.high
    assert [report.gain[key] for key in ("ratio", "low", "high")] == [1, 1, 1]
    assert any("too noisy to conclude" in warning for warning in report.warnings)


def test_the_measurement_that_chose_is_not_believed(files: dict[str, Path], pretend: Pretend) -> None:
    """One configuration is twice as fast while it is chosen, and slower than the default ever after."""
    lucky = Configuration(threads=1)
    last: list[int] = []
    pretend(lambda each: 100 if each != lucky else 130 if last else 50)

    def progress(what: str, done: int, total: int) -> None:
        if "against the default" in what:
            last.append(done)

    report = tune(files, max_threads=2, on_progress=progress)
    assert (report.best, report.winner) == (lucky, DEFAULT)
    assert report.measured[0].ratio == pytest.approx(0.5, 0.1)
    assert report.ratio == pytest.approx(1.3, 0.1)
    assert last == list(range(60))


TAILS: dict[str, tuple[float, float, float]] = {  # microseconds, how often it takes longer, and how long then
    "a": (100, 0.02, 200),
    "middle": (80, 0.05, 1000),
    "tail": (95, 0, 95),
    "mean": (90, 0.02, 150),
}


@pytest.mark.parametrize(("goal", "wins"), [("p50", "middle"), ("p99", "tail"), ("throughput", "mean")])
def test_each_goal_has_a_winner_of_its_own(
    goal: str, wins: str, tmp_path: Path, pretend: Pretend, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend(lambda each: 1)
    random = np.random.default_rng(0)

    def time(runner: SessionRunner, length: int) -> NDArray[np.float64]:
        usual, often, slow = TAILS[Path(runner.path).stem]
        return np.where(random.random(length) < often, slow, usual) * random.lognormal(0, 0.01, length)

    monkeypatch.setattr(SessionRunner, "time", time)
    files = {"" if name == "a" else name: save(tmp_path / f"{name}.onnx") for name in TAILS}
    report = tune(files, goal=goal, batch_size=4, rounds=100, max_threads=1)
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


def test_a_99_percent_quantile_has_enough_runs_behind_it(files: dict[str, Path], pretend: Pretend) -> None:
    pretend(lambda each: 5000.0)  # two runs a burst
    for goal, rounds in {"p50": 20, "p99": TAIL_RUNS // 2}.items():
        assert tune(files, goal=goal, rounds=20, max_threads=1).rounds == rounds


def test_bad_wishes(files: dict[str, Path]) -> None:
    with pytest.raises(InputError, match="unknown goal 'p95'; known are p50, p99, throughput"):
        tune(files, goal="p95")
    with pytest.raises(InputError, match="rounds must be at least 20, got 19"):
        tune(files, rounds=19)
    with pytest.raises(InputError, match="does not exist"):
        tune({"": files[""].with_name("none.onnx")})


def test_the_ratios_by_hand() -> None:
    ours = [[np.array([1.0, 3, 9]), np.array([2.0, 2, 2])], [np.array([4.0, 8, 6]), np.array([1.0, 1, 40])]]
    theirs = [[np.array([2.0, 6]), np.array([4.0, 2])], [np.array([5.0, 5]), np.array([1.0, 3])]]
    timings = Timings(bursts={("a", 1): ours, ("b", 1): theirs})
    everything = [np.concatenate([burst for block in bursts for burst in block]) for bursts in (ours, theirs)]
    expected = {
        "p50": np.median([3 / 4, 2 / 3, 6 / 5, 1 / 2]),
        "p99": np.quantile(everything[0], 0.99) / np.quantile(everything[1], 0.99),
        "throughput": everything[0].mean() / everything[1].mean(),
    }
    for goal in GOALS:
        middle, low, high = ratio(goal, timings, "a", "b", 1)
        assert middle == pytest.approx(expected[goal])
        assert low <= middle <= high
        assert ratio(goal, timings, "a", "a", 1) == (1, 1, 1), "rounds are resampled with both in them"
    runs = np.array([10.0, 20, 60])
    assert [figure(goal, runs, 3) for goal in GOALS] == pytest.approx([20, 59.2, 3e6 / 30])


def test_a_real_search(files: dict[str, Path]) -> None:
    report: TuningReport = tune(files, batch_size=3, max_threads=1, rounds=20)
    assert len(report.measured) == 3
    assert 0 < report.low <= report.ratio <= report.high
    assert report.machine["onnxruntime"]
