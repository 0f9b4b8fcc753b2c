from __future__ import annotations

import json
import statistics
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from itertools import chain, cycle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from smx.errors import InputError, SmxError
from smx.runtime.latency import measure as latency
from smx.runtime.latency.measure import LatencyReport, measure_latency
from smx.runtime.latency.runner import SessionRunner
from smx.runtime.session import Session
from smx.runtime.settings import Settings
from smx.timing import interleave
from smx.timing.interleave import Timings, time_in_turn
from smx.timing.intervals import bootstrap
from smx.timing.report import Latency, doubts
from smx.timing.runners import Runner
from tests.runtime.fakes import HEAD, FakeRunner, save
from tests.runtime.fakes import timings as made_up

QUIET = {"processor": "p", "cores": 4, "load": [0.0, 9.0, 9.0]}


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with nothing else to do, whatever runs beside the tests."""
    monkeypatch.setattr(latency, "machine", lambda: dict(QUIET))


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    return {name: save(tmp_path / f"{name}.onnx") for name in ("slow", "relu")}


def pretend(monkeypatch: pytest.MonkeyPatch, microseconds: Mapping[str, float]) -> Callable[[int], None]:
    """Let files take these times, in each round multiplied by a mood that all share; return an on_progress."""
    moods = cycle([1, 2, 4])
    mood = 1.0

    def time(runner: SessionRunner, length: int) -> NDArray[np.float64]:
        assert runner._session is not None
        return np.full(length, mood * microseconds[Path(runner.path).stem])

    def on_progress(batch_size: int) -> None:
        nonlocal mood
        mood = next(moods)

    monkeypatch.setattr(SessionRunner, "time", time)
    return on_progress


def measured(monkeypatch: pytest.MonkeyPatch, files: Mapping[str, Path], timings: Timings, **options: Any) -> Any:
    """Return the report of measurements that are given."""
    monkeypatch.setattr(latency, "time_in_turn", lambda *arguments, **more: timings)
    return measure_latency(files, memory=False, **options)


def test_ratios_are_to_the_baseline_of_the_same_round(files: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    on_progress = pretend(monkeypatch, {"slow": 3000, "relu": 1000})
    report = measure_latency(
        files, baseline="relu", batch_sizes=(4, 1), rounds=6, memory=False, on_progress=on_progress
    )
    assert [(row.name, row.batch_size) for row in report.results] == [
        ("slow", 4), ("relu", 4), ("slow", 1), ("relu", 1),
    ]  # fmt: skip
    for row in report.results:
        expected = 3 if row.name == "slow" else 1
        assert row.ratio == row.ratio_low == row.ratio_high == expected
        assert row.p50 == expected * 2000, "of moods 1, 2 and 4"
        assert row.mean == pytest.approx(expected * 7000 / 3)
        assert row.throughput == pytest.approx(row.batch_size * 1e6 / row.mean)
    assert report.batch_sizes == (4, 1)
    assert [(row.name, row.batch_size, row.ratio) for row in report.control] == [
        ("relu again", 4, 1),
        ("relu again", 1, 1),
    ]
    assert report.ratios("relu", "slow", 4).tolist() == [[1 / 3]] * 6
    assert (report.baseline, report.provider, report.io_binding, report.level) == ("relu", "cpu", False, 0.99)
    assert report.settings == Settings(threads=1)
    assert report.warnings == ("6 rounds are too few for intervals to rely on; expected at least 20",)


def test_a_row_by_hand(files: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(0)
    bursts = {
        (name, 8): [[random.exponential(100, 7) + 50 for _ in range(3)] for _ in range(5)]
        for name in ("slow", "relu", "relu again")
    }
    report = measured(monkeypatch, files, Timings(bursts=bursts, starts={"slow": [], "relu": [0.5, 0.1, 0.3]}),
                      baseline="relu", batch_sizes=(8,))  # fmt: skip
    rows = {row.name: row for row in (*report.results, *report.control)}
    for name, row in rows.items():
        runs = [float(time) for block in bursts[name, 8] for burst in block for time in burst]
        percents = statistics.quantiles(runs, n=100, method="inclusive")
        assert row.runs == 5 * 3 * 7
        assert row.mean == pytest.approx(statistics.fmean(runs))
        assert (row.p50, row.p90, row.p99) == pytest.approx((statistics.median(runs), percents[89], percents[98]))
        assert row.quantiles == pytest.approx([percents[i - 1] for i in (1, 5, 10, 25, 50, 75, 90, 95, 99)])
        assert row.throughput == pytest.approx(8 / (statistics.fmean(runs) * 1e-6))
        ratios = [
            [statistics.median(ours) / statistics.median(theirs) for ours, theirs in zip(a, b, strict=True)]
            for a, b in zip(bursts[name, 8], bursts["relu", 8], strict=True)
        ]
        assert row.ratio == pytest.approx(statistics.median(chain.from_iterable(ratios)))
        assert (row.ratio_low, row.ratio_high) == pytest.approx(bootstrap(np.array(ratios)))
    assert rows["relu"].ratio_low == rows["relu"].ratio_high == 1
    assert rows["slow"].ratio_low < rows["slow"].ratio < rows["slow"].ratio_high
    assert [candidate.start for candidate in report.candidates] == [None, 300], "milliseconds"


def test_real_times(files: dict[str, Path]) -> None:
    report = measure_latency(files, baseline="relu", batch_sizes=(2,), rounds=3)
    for row in (*report.results, *report.control):
        assert 0 < row.p50 <= row.p90 <= row.p99
        assert row.ratio_low <= row.ratio <= row.ratio_high
    for candidate in report.candidates:
        assert candidate.bytes == files[candidate.name].stat().st_size
        assert candidate.start is not None
        assert candidate.start > 0
        assert candidate.peak_memory is None or candidate.peak_memory > 0
    plain = report.to_dict()
    assert set(plain) == {
        "baseline", "provider", "settings", "io_binding", "blocks", "rounds", "level", "machine", "candidates",
        "results", "control", "warnings",
    }  # fmt: skip
    again = json.loads(json.dumps(plain))
    assert again["results"][0] == {**vars(report.results[0]), "quantiles": list(report.results[0].quantiles)}
    assert again["control"][0]["name"] == "relu again"
    assert again["candidates"][1] == vars(report.candidates[1])
    assert again["settings"] == vars(report.settings)
    assert again["machine"] == {**QUIET, "load_after": QUIET["load"]}
    assert again["warnings"] == list(report.warnings)


@pytest.mark.parametrize(("rounds", "blocks", "each"), [(60, 10, 6), (25, 10, 3), (10, 10, 1), (7, 7, 1), (1, 1, 1)])
def test_rounds_are_divided_into_blocks(
    rounds: int, blocks: int, each: int, files: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[dict[str, Any]] = []

    def record(*arguments: Any, **options: Any) -> Timings:
        asked.append(options)
        return time_in_turn(*arguments, **options)

    pretend(monkeypatch, {"slow": 1e6, "relu": 1e6})
    monkeypatch.setattr(latency, "time_in_turn", record)
    seen: Counter[int] = Counter()
    report = measure_latency(
        files, baseline="slow", batch_sizes=(1, 2), rounds=rounds, seed=3, memory=False,
        on_progress=lambda batch_size: seen.update([batch_size]),
    )  # fmt: skip
    assert [(options["blocks"], options["rounds"], options["seed"]) for options in asked] == [(blocks, each, 3)]
    assert (report.blocks, report.rounds) == (blocks, blocks * each)
    assert seen == {1: blocks * each, 2: blocks * each}
    assert report.timings.medians("relu", 2).shape == (blocks, each)


class Recorder(FakeRunner):
    """A runner that is no file: ten times as slow as the files."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[str] = []
        self.sums: set[float] = set()

    def start(self) -> float | None:
        self.told.append("start")
        return None

    def prepare(self, inputs: Sequence[NDArray[Any]]) -> None:
        super().prepare(inputs)
        self.sums.add(float(inputs[0].sum()))

    def time(self, length: int) -> NDArray[np.float64]:
        return np.full(length, 10_000.0)

    def stop(self) -> None:
        self.told.append("stop")


def test_runners_beside_files(files: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, {"slow": 3000, "relu": 1000})
    runner = Recorder()
    candidates: dict[str, Path | Runner] = {**files, "other": runner}
    options: dict[str, Any] = {"batch_sizes": (1, 5), "rounds": 2, "memory": False}
    report = measure_latency(candidates, baseline="relu", seed=7, **options)
    assert {row.ratio for row in report.results if row.name == "other"} == {10}
    assert vars(report.candidates[2]) == {"name": "other", "bytes": None, "start": None, "peak_memory": None}
    assert runner.told == ["start", "start", "stop"]
    expected = [Session(files["relu"]).random_inputs(size, 7)[0] for size in (1, 5)]
    assert runner.sums == {float(x.sum()) for x in expected}

    report = measure_latency(candidates, baseline="other", **options)
    assert {row.ratio for row in report.results if row.name == "relu"} == {0.1}
    assert report.control == (), "a runner is not loaded twice"
    assert report.warnings == ("2 rounds are too few for intervals to rely on; expected at least 20",)
    with pytest.raises(InputError, match="at least one candidate must be an ONNX file"):
        measure_latency({"other": runner}, baseline="other")


def test_a_candidate_that_is_called_like_the_control(files: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, {"slow": 3000, "relu": 1000})
    report = measure_latency({"relu": files["relu"], "relu again": files["slow"]}, baseline="relu", batch_sizes=(1,),
                             rounds=2, memory=False)  # fmt: skip
    assert [(row.name, row.ratio) for row in report.results] == [("relu", 1), ("relu again", 3)]
    assert [row.ratio for row in report.control] == [1]


def test_how_files_are_run(files: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, {"slow": 3000, "relu": 1000})
    made: list[tuple[Any, ...]] = []
    original = SessionRunner.__init__

    def init(self: SessionRunner, path: Any, provider: str, settings: Settings, **options: Any) -> None:
        made.append((path, provider, settings, options))
        original(self, path, settings=settings, **options)

    measured_memory: list[tuple[Any, ...]] = []

    def memory(path: Any, inputs: Sequence[NDArray[Any]], **options: Any) -> int:
        measured_memory.append((path, [x.shape for x in inputs], options))
        return 123

    monkeypatch.setattr(SessionRunner, "__init__", init)
    monkeypatch.setattr(latency, "peak_memory", memory)
    settings = Settings(threads=2, spinning=False)
    report = measure_latency(files, baseline="relu", batch_sizes=(1, 16, 4), rounds=1, settings=settings,
                             io_binding=True, allow_fallback=True)  # fmt: skip
    expected = [(path, "cpu", settings, {"io_binding": True, "allow_fallback": True}) for path in files.values()]
    assert made == [*expected, expected[1]]
    options = {"provider": "cpu", "settings": settings, "allow_fallback": True}
    assert measured_memory == [(path, [(16, 3)], options) for path in files.values()]
    assert [candidate.peak_memory for candidate in report.candidates] == [123, 123]
    assert (report.settings, report.io_binding) == (settings, True)
    for provider, binding in (("cpu", False), ("cuda", True), ("openvino", False)):
        made.clear()
        report = measure_latency(files, baseline="relu", batch_sizes=(1,), rounds=1, provider=provider, memory=False)
        assert {(options["io_binding"], given) for _, given, _, options in made} == {(binding, provider)}
        assert (report.provider, report.io_binding) == (provider, binding)
        assert {options["allow_fallback"] for _, _, _, options in made} == {False}
        assert report.candidates[0].peak_memory is None


def test_candidates_of_several_threads_wait_for_each_others(
    files: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Threads of the candidate before spin on; one thread leaves none behind."""
    waiting: list[str] = []
    monkeypatch.setattr(interleave, "settle", lambda: waiting.append("settle"))
    options: dict[str, Any] = {"baseline": "relu", "batch_sizes": (1,), "rounds": 2, "memory": False}
    for threads, waits in ((1, False), (2, True), (None, True)):
        waiting.clear()
        report = measure_latency(files, settings=Settings(threads=threads), **options)
        # In two blocks three candidates warm up and have their turn.
        assert len(waiting) == (12 if waits else 0)
        assert report.settings.threads == threads


def test_all_are_stopped_whatever_happens(files: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    class Failing(Recorder):
        def time(self, length: int) -> NDArray[np.float64]:
            raise SmxError("a process that runs a candidate was killed")

    stopped: list[str] = []
    monkeypatch.setattr(SessionRunner, "stop", lambda runner: stopped.append(Path(runner.path).stem))
    runner = Failing()
    with pytest.raises(SmxError, match="was killed"):
        measure_latency({**files, "other": runner}, baseline="relu", batch_sizes=(1,))
    assert runner.told[-1] == "stop"
    assert stopped[-3:] == ["slow", "relu", "relu"]
    stopped.clear()
    with pytest.raises(InputError, match=r"none\.onnx does not exist"):
        measure_latency({**files, "none": files["relu"].with_name("none.onnx")}, baseline="relu")
    assert {"slow", "relu"} <= set(stopped)


def test_models_of_several_inputs_and_of_whole_numbers(tmp_path: Path) -> None:
    text = (
        HEAD
        + """(float[batch,3] x, int64[batch,2] i) => (float[batch,3] y, int64[batch,2] j) {
        a = CastLike(i, x)  b = ReduceMax <keepdims = 1> (a)  y = Add(x, b)  j = Add(i, i)
    }"""
    )
    path = save(tmp_path / "two.onnx", text)
    report = measure_latency({"a": path, "b": path}, baseline="a", batch_sizes=(1, 3), rounds=1, memory=False)
    assert len(report.results) == 4
    gather = (
        "(int64[batch,2] i) => (float[batch,2] y) {{ a = Constant <value_floats = [{values}]> () y = Gather(a, i) }}"
    )
    large = save(tmp_path / "large.onnx", HEAD + gather.format(values=", ".join(["1.0"] * 256)))
    measure_latency({"a": large}, baseline="a", batch_sizes=(50,), rounds=1, memory=False)
    small = save(tmp_path / "small.onnx", HEAD + gather.format(values="1.0, 2.0"))
    with pytest.raises(InputError, match=r"small\.onnx can't run this input: [^\n]*$"):
        measure_latency({"a": small}, baseline="a", batch_sizes=(50,), rounds=1, memory=False)


def test_candidates_that_dont_fit(files: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="the baseline 'elu' is not among the candidates slow, relu"):
        measure_latency(files, baseline="elu")
    wide = save(tmp_path / "wide.onnx", HEAD + "(float[batch,4] x) => (float[batch,4] y) { y = Relu(x) }")
    two = save(tmp_path / "two.onnx", HEAD + "(float[b,3] x, float[b,3] z) => (float[b,3] y) { y = Add(x, z) }")
    for path in (wide, two):
        with pytest.raises(
            InputError, match=r"must take the same inputs, but slow takes tensor\(float\) of shape \(batch, 3\)"
        ):
            measure_latency({**files, "other": path}, baseline="relu")
    fixed = save(tmp_path / "fixed.onnx", HEAD + "(float[4,3] x) => (float[4,3] y) { y = Relu(x) }")
    for sizes in ((1,), (4, 1)):
        with pytest.raises(
            InputError, match=r"fixed\.onnx is made for batch size 4 alone, got .*1; give --batch-sizes 4"
        ):
            measure_latency({**files, "fixed": fixed}, baseline="relu", batch_sizes=sizes)
    report = measure_latency({**files, "fixed": fixed}, baseline="fixed", batch_sizes=(4,), rounds=1, memory=False)
    assert report.batch_sizes == (4,)
    with pytest.raises(InputError, match="unknown provider 'gpu'"):
        measure_latency(files, baseline="relu", provider="gpu")


def row(name: str = "relu", batch_size: int = 1, ratio: float = 1.0, low: float = 1.0, high: float = 1.0) -> Latency:
    return Latency(
        name=name, batch_size=batch_size, ratio=ratio, ratio_low=low, ratio_high=high, runs=1, mean=1, p50=1, p90=1,
        p99=1, throughput=1, quantiles=(),
    )  # fmt: skip


def warnings(
    results: Sequence[Latency] = (),
    control: Sequence[Latency] = (),
    load: Sequence[float] | None = (0, 0, 0),
    timings: Timings | None = None,
) -> list[str]:
    before = {"load": load, "cores": 4}
    return list(doubts(results or [row()], control, "relu", before, timings or Timings()))


def test_a_busy_machine_is_told() -> None:
    assert warnings(load=(2.0, 9, 9)) == []
    assert warnings(load=None) == []
    assert warnings(load=(2.01, 0, 0)) == ["the machine was busy before the measurement began: load 2.01 on 4 cores"]


BIASES = [(0.9, 1.1, 0), (1.0, 1.5, 0), (1.009, 1.1, 0), (1.011, 1.1, 1), (0.5, 0.991, 0), (0.5, 0.989, 1)]


@pytest.mark.parametrize(("low", "high", "times"), BIASES)
def test_a_biased_control_is_told(low: float, high: float, times: int) -> None:
    found = warnings(control=[row(batch_size=1), row(batch_size=16, ratio=1.0125, low=low, high=high)])
    expected = f"batch 16: relu against itself measured 1.012 ({low:.3f} to {high:.3f}); differences of that size mean"
    assert found == [f"{expected} nothing here"] * times


def test_wide_intervals_are_told_once_a_batch_size() -> None:
    assert warnings([row("a", 1, low=1.0, high=1.09), row("b", 1, low=2.0, high=2.18)]) == []
    found = warnings([
        row("a", 1, low=1.0, high=1.2), row("b", 1, low=2.0, high=2.5), row("c", 1, low=4.0, high=4.7),
        row("a", 16, low=1.0, high=1.05), row("b", 128, low=1.0, high=1.11),
    ])  # fmt: skip
    assert [warning[: warning.index(";")] for warning in found] == [
        "batch 1: too noisy to conclude, the interval of b goes from 2.00 to 2.50",
        "batch 128: too noisy to conclude, the interval of b goes from 1.00 to 1.11",
    ]


def test_candidates_that_stayed_unsteady_are_told() -> None:
    timings = made_up({(name, size): [[1.0]] * 4 for name in "ab" for size in (1, 16)})
    timings.unsteady.update({("a", 1): 2, ("b", 1): 0})
    assert warnings(timings=timings) == []
    timings.unsteady.update({("a", 1): 1, ("b", 16): 4})
    assert warnings(timings=timings) == [
        "still becoming faster when their warm-up was ended: a at batch 1, b at batch 16"
    ]


def test_the_report_has_the_warnings(files: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    loads = iter([[3.0, 0.0, 0.0], [0.5, 0.0, 0.0]])
    monkeypatch.setattr(latency, "machine", lambda: {**QUIET, "load": next(loads)})
    base = np.full((10, 6), 100.0)
    noise = np.random.default_rng(0).uniform(0.5, 2, (10, 6))
    timings = made_up({("slow", 2): 100 * noise, ("relu", 2): base, ("relu again", 2): 1.05 * base})
    timings.unsteady.update({("relu again", 2): 6})
    report: LatencyReport = measured(monkeypatch, files, timings, baseline="relu", batch_sizes=(2,))
    busy, biased, wide, unsteady = report.warnings
    assert "load 3.00 on 4 cores" in busy
    assert "batch 2: relu against itself measured 1.050" in biased
    assert "batch 2: too noisy to conclude, the interval of slow" in wide
    assert unsteady.endswith("relu again at batch 2")
    assert (report.machine["load"], report.machine["load_after"]) == ([3.0, 0.0, 0.0], [0.5, 0.0, 0.0])
