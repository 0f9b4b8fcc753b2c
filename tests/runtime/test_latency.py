from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import smx
from smx.errors import InputError
from smx.export import export_onnx
from smx.runtime import latency, measure_latency
from smx.runtime.session import Session


def test_every_candidate_is_timed_in_every_round(exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a clock of the test's own: `slow` takes 30 ticks of a microsecond where `relu` takes 10."""
    order: list[str] = []

    def burst(session: Session, x: np.ndarray, length: int) -> np.ndarray:
        order.append(session.name)
        return np.full(length, 30.0 if "slow" in session.name else 10.0)

    monkeypatch.setattr(latency, "_time_burst", burst)
    slow = exported.with_name("slow.onnx")
    slow.write_bytes(exported.read_bytes())
    report = measure_latency({"slow": slow, "relu": exported}, baseline="relu", batch_sizes=(1, 4), rounds=6)
    results = {(row.name, row.batch_size): row for row in report.results}
    assert set(results) == {("slow", 1), ("relu", 1), ("slow", 4), ("relu", 4)}
    assert results["slow", 4].ratio == results["slow", 4].ratio_low == results["slow", 4].ratio_high == 3
    assert results["relu", 1].ratio == 1
    assert (results["slow", 1].p50, results["slow", 1].p99) == (30, 30)
    assert results["relu", 1].runs == 6 * latency.MAX_BURST
    rounds = order[4:16]  # two bursts each warm the candidates up
    assert all(len(set(rounds[i : i + 2])) == 2 for i in range(0, 12, 2))


def test_real_times(exported: Path) -> None:
    report = measure_latency({"a": exported, "b": exported}, baseline="a", batch_sizes=(2,), rounds=3)
    for row in report.results:
        assert 0 < row.p50 <= row.p90 <= row.p99
        assert row.ratio_low <= row.ratio <= row.ratio_high
    assert report.machine["onnxruntime"]
    assert report.to_dict()["results"][0]["name"] == "a"


def test_candidates_that_dont_fit(exported: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="the baseline 'relu' is not among the candidates scatter"):
        measure_latency({"scatter": exported}, baseline="relu")
    other = tmp_path / "other.onnx"
    export_onnx(smx.Mixed([0] * 3), other, example_input=torch.zeros(1, 3))
    with pytest.raises(InputError, match="must take examples of one fixed shape"):
        measure_latency({"a": exported, "b": other}, baseline="a")
