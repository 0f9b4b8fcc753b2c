from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import numpy as np
import pytest

from smx.errors import InputError, SmxError
from smx.timing import settle as settling
from smx.timing.runners import ProcessRunner, time_runs
from tests.timing.fakes import FakeRunner, die


def test_each_run_is_timed_but_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 5_000
    durations = iter([70_000, 1_000, 2_500, 4_000])

    def run() -> None:
        nonlocal now
        now += next(durations)

    monkeypatch.setattr(time, "perf_counter_ns", lambda: now)
    assert time_runs(run, 3).tolist() == [1.0, 2.5, 4.0]
    assert next(durations, None) is None


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


def test_the_process_ends_when_its_parent_is_killed() -> None:
    code = """
import time
from smx.timing import settle as settling
from smx.timing.runners import ProcessRunner
from tests.timing.fakes import FakeRunner
print(int(ProcessRunner(FakeRunner).start()), flush=True)
time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert not gone(pid)
        parent.kill()
    deadline = time.monotonic() + 30
    while not gone(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert gone(pid)


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
