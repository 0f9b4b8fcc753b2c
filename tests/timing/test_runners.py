from __future__ import annotations

import os
import signal
import weakref
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from smx.errors import InputError, SmxError
from smx.runtime.latency import runner
from smx.runtime.latency.runner import SessionRunner
from smx.runtime.session import Session
from smx.runtime.settings import Settings
from smx.timing import runners
from smx.timing.runners import ProcessRunner, time_runs
from tests.runtime.fakes import HEAD, FakeRunner, die, save


class Clock:
    """A clock that only the test moves; in nanoseconds."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 5_000
        clock = SimpleNamespace(perf_counter_ns=lambda: self.now, perf_counter=lambda: self.now / 1e9)
        monkeypatch.setattr(runners, "time", clock)
        monkeypatch.setattr(runner, "time", clock)


def test_each_run_is_timed_but_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    durations = iter([70_000, 1_000, 2_500, 4_000])

    def run() -> None:
        clock.now += next(durations)

    assert time_runs(run, 3).tolist() == [1.0, 2.5, 4.0]
    assert next(durations, None) is None


def test_starting_loads_anew_and_releases_what_was_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    made: list[weakref.ref[Session]] = []
    arguments: list[Any] = []

    def load(*args: Any, **options: Any) -> Session:
        assert all(old() is None for old in made), "the old session is gone before a new one is made"
        session = Session(*args, **options)
        made.append(weakref.ref(session))
        arguments.append((args, options))
        clock.now += 2_000_000_000
        return session

    monkeypatch.setattr(runner, "Session", load)
    path = save(tmp_path / "m.onnx")
    settings = Settings(threads=1, optimization="basic")
    candidate = SessionRunner(path, settings=settings, allow_fallback=True)
    assert not made, "making a runner loads nothing"
    assert candidate.session is candidate.session
    assert len(made) == 1
    for _ in range(2):
        assert candidate.start() == 2.0
        candidate.prepare([np.zeros((2, 3))])
        assert candidate.time(2).shape == (2,)
    assert len(made) == 3
    assert arguments == [((path, "cpu"), {"settings": settings, "allow_fallback": True})] * 3
    candidate.stop()
    assert made[-1]() is None
    arguments.clear()
    assert SessionRunner(path).session.provider == "cpu"
    assert arguments == [((path, "cpu"), {"settings": Settings(), "allow_fallback": False})], "smx tune's are not used"


TWO_BY_TWO = (
    HEAD
    + """(float[batch,3] x, int64[batch,2] i) => (float[batch,3] y, int64[batch,2] j) <int64[1] one = {1}> {
    a = CastLike(i, x)  b = ReduceSum <keepdims = 1> (a, one)  y = Add(x, b)  j = Add(i, i)
}"""
)


@pytest.mark.parametrize("io_binding", [False, True])
def test_a_timed_run_gives_the_models_answers(
    io_binding: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner = SessionRunner(save(tmp_path / "m.onnx", TWO_BY_TWO), io_binding=io_binding)
    runner.start()
    session: Any = runner.session
    inner = session._session
    answers: list[list[Any]] = []
    bound: list[bool] = []

    class Watched:
        """The session of ONNX Runtime, with its answers kept."""

        def __getattr__(self, name: str) -> Any:
            return getattr(inner, name)

        def run(self, names: None, feed: dict[str, Any]) -> Any:
            answers.append(inner.run(names, feed))
            bound.append(False)
            return answers[-1]

        def run_with_iobinding(self, binding: Any) -> None:
            inner.run_with_iobinding(binding)
            answers.append(binding.copy_outputs_to_cpu())
            bound.append(True)

    session._session = Watched()
    random = np.random.default_rng(0)
    for batch in (4, 5):
        x, i = random.random((batch, 3)), random.integers(9, size=(batch, 2), dtype=np.int32)
        expected = (x + i.sum(1, keepdims=True), 2 * i)
        runner.prepare([x, i])
        del x, i  # the runner keeps what it needs
        answers.clear()
        bound.clear()
        assert (runner.time(3) > 0).all()
        assert bound == [io_binding] * 4
        assert len(answers) == 4
        for answer in answers:
            np.testing.assert_allclose(answer[0], expected[0], rtol=1e-6)
            np.testing.assert_array_equal(answer[1], expected[1])


@pytest.mark.parametrize("io_binding", [False, True])
def test_inputs_are_checked_before_they_are_timed(io_binding: bool, tmp_path: Path) -> None:
    runner = SessionRunner(save(tmp_path / "m.onnx", TWO_BY_TWO), io_binding=io_binding)
    i = np.zeros((4, 2), np.int64)
    with pytest.raises(InputError, match=r"expects an input of shape \(batch, 3\), got \(4, 5\)"):
        runner.prepare([np.zeros((4, 5)), i])
    with pytest.raises(InputError, match="expects 2 inputs, got 1"):
        runner.prepare([np.zeros((4, 3))])
    with pytest.raises(InputError, match="expects whole numbers"):
        runner.prepare([np.zeros((4, 3)), i / 2])


def test_inputs_that_fit_but_cant_be_run_are_an_error_of_one_line(tmp_path: Path) -> None:
    gather = HEAD + "(int64[batch,2] i) => (float[batch,2] y) <float[3] w = {1, 2, 3}> { y = Gather(w, i) }"
    runner = SessionRunner(save(tmp_path / "m.onnx", gather))
    runner.prepare([np.full((1, 2), 2)])
    with pytest.raises(InputError, match=r"m\.onnx can't run this input: [^\n]*out of data bounds[^\n]*$"):
        runner.prepare([np.full((1, 2), 3)])


@pytest.fixture(scope="module")
def elsewhere() -> Iterator[ProcessRunner]:
    runner = ProcessRunner(FakeRunner)
    yield runner
    runner.stop()


def test_a_process_answers_in_the_runners_place(elsewhere: ProcessRunner) -> None:
    there = elsewhere.start()
    assert there is not None
    assert there != os.getpid()
    elsewhere.prepare((np.array([1.0, 2]), np.array([[4]])))
    times = elsewhere.time(3)
    assert times.tolist() == [3, 4, 3]
    assert elsewhere.start() is None, "the runner stays the same one"
    os.kill(int(there), signal.SIGINT)  # as Ctrl-C does; the measuring process answers it, by stop()
    assert elsewhere.time(1).tolist() == [3]


def test_errors_of_the_process_arrive_as_one_line(elsewhere: ProcessRunner) -> None:
    with pytest.raises(InputError, match=r"^expected inputs, got none$") as caught:
        elsewhere.prepare([])
    assert caught.value.exit_code == 2
    with pytest.raises(SmxError, match=r"^RuntimeError: two lines$") as other:
        elsewhere.prepare([np.zeros(0)])
    assert not isinstance(other.value, InputError)
    elsewhere.prepare([np.ones(2)])
    assert elsewhere.time(1).tolist() == [2]


def gone(pid: int | None) -> bool:
    assert pid is not None
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def test_a_process_that_was_killed() -> None:
    runner = ProcessRunner(FakeRunner)
    pid = runner._process.pid
    runner.start()
    with pytest.raises(SmxError, match=r"^a process that runs a candidate was killed; is there enough memory\?$"):
        runner.time(-1)
    with pytest.raises(SmxError, match="was killed"):
        runner.time(1)
    runner.stop()
    assert gone(pid)


def test_one_that_dies_when_it_is_made() -> None:
    runner = ProcessRunner(die)  # type: ignore[arg-type]
    with pytest.raises(SmxError, match="was killed"):
        runner.start()
    runner.stop()


def test_stopping_ends_the_process_busy_or_not(monkeypatch: pytest.MonkeyPatch) -> None:
    idle, busy = ProcessRunner(FakeRunner), ProcessRunner(FakeRunner)
    pids = [idle._process.pid, busy._process.pid]
    assert idle._process.daemon, "it ends with this process, too"
    for each in (idle, busy):
        each.start()
    idle.stop()
    assert idle._process.exitcode == 0, "it was asked, not killed"
    busy._pipe.send(("time", (0,)))
    patient = busy._process.join
    monkeypatch.setattr(busy._process, "join", lambda timeout=None: patient(None if timeout is None else 0.1))
    busy.stop()
    assert busy._process.exitcode == -signal.SIGKILL
    assert all(map(gone, pids))
    busy.stop()  # twice does no harm
