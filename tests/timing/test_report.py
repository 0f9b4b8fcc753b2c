from __future__ import annotations

import statistics
from collections.abc import Sequence
from itertools import chain
from typing import Any

import numpy as np
import pytest

from smx.timing.interleave import Timings
from smx.timing.intervals import bootstrap
from smx.timing.report import Latency, TimingReport, rows, warnings
from tests.timing.fakes import timings as made_up


def test_a_row_by_hand() -> None:
    random = np.random.default_rng(0)
    bursts = {
        (name, 8): [[random.exponential(100, 7) + 50 for _ in range(3)] for _ in range(5)] for name in ("slow", "relu")
    }
    found = {row.name: row for row in rows(Timings(bursts=bursts), ("slow", "relu"), "relu", (8,))}
    for name, row in found.items():
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
    assert list(found) == ["slow", "relu"]
    assert found["relu"].ratio_low == found["relu"].ratio_high == 1
    assert found["slow"].ratio_low < found["slow"].ratio < found["slow"].ratio_high


def row(name: str = "relu", batch_size: int = 1, ratio: float = 1.0, low: float = 1.0, high: float = 1.0) -> Latency:
    return Latency(
        name=name, batch_size=batch_size, ratio=ratio, ratio_low=low, ratio_high=high, runs=1, mean=1, p50=1, p90=1,
        p99=1, throughput=1, quantiles=(),
    )  # fmt: skip


def report(
    results: Sequence[Latency] = (row(),), load: Sequence[float] | None = (0, 0, 0), **others: Any
) -> TimingReport:
    values = {"control": (), "rounds": 60, "timings": Timings(), **others}
    return TimingReport(
        baseline="relu", blocks=10, level=0.99, machine={"load": load, "cores": 4}, results=tuple(results), warnings=(),
        **values,
    )  # fmt: skip


def warned(*results: Latency, **others: Any) -> list[str]:
    return list(warnings(report(results or (row(),), **others)))


def test_too_few_rounds_or_a_busy_machine() -> None:
    assert warned() == warned(rounds=20) == warned(load=(2.0, 9, 9)) == warned(load=None) == []
    assert warned(rounds=19) == ["19 rounds are too few for intervals to rely on; expected at least 20"]
    assert warned(load=(2.01, 0, 0)) == ["the machine was busy before the measurement began: load 2.01 on 4 cores"]


BIASES = [(0.9, 1.1, 0), (1.0, 1.5, 0), (1.009, 1.1, 0), (1.011, 1.1, 1), (0.5, 0.991, 0), (0.5, 0.989, 1)]


@pytest.mark.parametrize(("low", "high", "times"), BIASES)
def test_a_biased_control(low: float, high: float, times: int) -> None:
    found = warned(control=(row(batch_size=1), row(batch_size=16, ratio=1.0125, low=low, high=high)))
    expected = f"batch 16: relu against itself measured 1.012 ({low:.3f} to {high:.3f}); differences of that size mean"
    assert found == [f"{expected} nothing here"] * times


def test_wide_intervals_once_a_batch_size() -> None:
    assert warned(row("a", 1, low=1.0, high=1.09), row("b", 1, low=2.0, high=2.18)) == []
    found = warned(
        row("a", 1, low=1.0, high=1.2), row("b", 1, low=2.0, high=2.5), row("c", 1, low=4.0, high=4.7),
        row("a", 16, low=1.0, high=1.05), row("b", 128, low=1.0, high=1.11),
    )  # fmt: skip
    assert [warning[: warning.index(";")] for warning in found] == [
        "batch 1: too noisy to conclude, the interval of b goes from 2.00 to 2.50",
        "batch 128: too noisy to conclude, the interval of b goes from 1.00 to 1.11",
    ]


def test_candidates_that_stayed_unsteady() -> None:
    timings = made_up({(name, size): [[1.0]] * 4 for name in "ab" for size in (1, 16)})
    timings.unsteady.update({("a", 1): 2, ("b", 1): 0})
    assert warned(timings=timings) == []
    timings.unsteady.update({("a", 1): 1, ("b", 16): 4})
    assert warned(timings=timings) == [
        "still becoming faster when their warm-up was ended: a at batch 1, b at batch 16"
    ]
