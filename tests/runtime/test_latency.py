from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from smx.errors import InputError, SmxError
from smx.runtime.latency import measure as latency
from smx.runtime.latency.measure import measure_latency
from smx.runtime.latency.runner import SessionRunner
from smx.runtime.session import Session
from smx.runtime.settings import Settings
from smx.timing import interleave
from smx.timing.runners import Runner
from tests.runtime.fakes import HEAD, save
from tests.timing.fakes import FakeRunner

ONCE: dict[str, Any] = {"batch_sizes": (1,), "rounds": 1, "memory": False}


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    return {name: save(tmp_path / f"{name}.onnx") for name in ("slow", "relu")}


@pytest.fixture
def made_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let runs of `slow` take 3000 microseconds, and of `relu` 1000."""

    def time(runner: SessionRunner, length: int) -> NDArray[np.float64]:
        assert runner.model is not None
        return np.full(length, {"slow": 3000.0, "relu": 1000.0}[Path(runner.path).stem])

    monkeypatch.setattr(SessionRunner, "time", time)


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
    assert again["settings"] == vars(report.settings) == vars(Settings(threads=1))


class Recorder(FakeRunner):
    """A runner that is no file: ten times as slow as `relu`."""

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


@pytest.mark.usefixtures("made_up")
def test_runners_beside_files(files: dict[str, Path]) -> None:
    runner = Recorder()
    candidates: dict[str, Path | Runner] = {**files, "other": runner}
    options: dict[str, Any] = {"batch_sizes": (1, 5), "rounds": 2, "memory": False}
    report = measure_latency(candidates, baseline="relu", seed=7, **options)
    assert [(row.name, row.ratio) for row in report.results] == [("slow", 3), ("relu", 1), ("other", 10)] * 2
    assert vars(report.candidates[2]) == {"name": "other", "bytes": None, "start": None, "peak_memory": None}
    assert runner.told == ["start", "start", "stop"]
    expected = [Session(files["relu"]).random_inputs(size, 7)[0] for size in (1, 5)]
    assert runner.sums == {float(x.sum()) for x in expected}

    report = measure_latency(candidates, baseline="other", **options)
    assert {row.ratio for row in report.results if row.name == "relu"} == {0.1}
    assert report.control == (), "a runner is not loaded twice"
    with pytest.raises(InputError, match="at least one candidate must be an ONNX file"):
        measure_latency({"other": runner}, baseline="other")


@pytest.mark.usefixtures("made_up")
def test_how_files_are_run(files: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
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
        report = measure_latency(files, baseline="relu", provider=provider, **ONCE)
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
    for threads, waits in ((1, 0), (2, 6), (None, 6)):
        waiting.clear()
        report = measure_latency(files, baseline="relu", settings=Settings(threads=threads), **ONCE)
        assert len(waiting) == waits, "three candidates warm up and have their turn"
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
    assert sorted(stopped[-3:]) == ["relu", "relu", "slow"]
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
        with pytest.raises(InputError, match=r"fixed\.onnx is made for batch size 4, got .*1; measure batch size 4"):
            measure_latency({**files, "fixed": fixed}, baseline="relu", batch_sizes=sizes)
    report = measure_latency({**files, "fixed": fixed}, baseline="fixed", **{**ONCE, "batch_sizes": (4,)})
    assert report.batch_sizes == (4,)
    with pytest.raises(InputError, match="unknown provider 'gpu'"):
        measure_latency(files, baseline="relu", provider="gpu")
