from __future__ import annotations

import time

import pytest

from smx.timing import settle as settling


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
