from __future__ import annotations

import time
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from smx.errors import InputError
from smx.runtime.latency import runner
from smx.runtime.latency.runner import SessionRunner
from smx.runtime.session import Session
from smx.runtime.settings import Settings
from tests.runtime.fakes import HEAD, save


def test_starting_loads_anew_and_releases_what_was_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(time, "perf_counter", lambda: now)
    made: list[weakref.ref[Session]] = []
    arguments: list[Any] = []

    def load(*args: Any, **options: Any) -> Session:
        nonlocal now
        assert all(old() is None for old in made), "the old session is gone before a new one is made"
        session = Session(*args, **options)
        made.append(weakref.ref(session))
        arguments.append((args, options))
        now += 2
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
