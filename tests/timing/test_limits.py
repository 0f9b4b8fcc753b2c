from __future__ import annotations

from dataclasses import asdict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from smx.errors import InputError
from smx.timing.intervals import bootstrap
from smx.timing.limits import Limit, judge
from smx.timing.report import Latency, TimingReport
from tests.timing.fakes import timings

NAMES = st.text(st.characters(exclude_characters="/<>=@", codec="utf-8"), min_size=1).filter(
    lambda text: text == text.strip()
)
MOST = st.floats(min_value=0, allow_infinity=False, allow_nan=False)


def report(medians: dict[tuple[str, int], NDArray[np.float64]]) -> TimingReport:
    """Return a report of measurements that are given; its rows say nothing but what was measured."""
    rows = [
        Latency(
            name=name, batch_size=size, ratio=0, ratio_low=0, ratio_high=0, runs=0, mean=0, p50=0, p90=0, p99=0,
            throughput=0, quantiles=(),
        )
        for name, size in medians
    ]  # fmt: skip
    return TimingReport(
        baseline="relu", blocks=10, rounds=60, level=0.99, machine={}, results=tuple(rows), control=(), warnings=(),
        timings=timings(medians),
    )  # fmt: skip


@given(NAMES, NAMES, MOST, st.none() | st.integers(min_value=0, max_value=10**9))
def test_what_is_written_is_read_back(name: str, baseline: str, most: float, batch_size: int | None) -> None:
    limit = Limit(name=name, baseline=baseline, most=most, batch_size=batch_size)
    assert Limit.parse(str(limit)) == limit
    assert Limit.parse(str(limit).replace("/", "\t/  ").replace("<=", " <= ").replace("@", " @ ") + "\n") == limit


def test_how_it_is_written() -> None:
    assert asdict(Limit.parse("sorted/relu<=1.10")) == {
        "name": "sorted", "baseline": "relu", "most": 1.1, "batch_size": None,
    }  # fmt: skip
    assert asdict(Limit.parse(" leaky relu / relu <= 2 @ 16 ")) == {
        "name": "leaky relu", "baseline": "relu", "most": 2.0, "batch_size": 16,
    }  # fmt: skip
    for text in ("sorted/relu<=1.1", "a.b-c/relu again<=2@16", "a/b<=0.000001", "a/b<=12345678.9@0"):
        assert str(Limit.parse(text)) == text


@pytest.mark.parametrize(
    "text",
    [
        "", "sorted", "sorted<=1.1", "sorted/relu", "sorted/relu<1.1", "sorted/relu>=1.1", "sorted/relu=1.1",
        "sorted/relu<=", "sorted/relu<=x", "sorted/relu<=-1", "sorted/relu<=1.1.1", "sorted/relu<=.", "/relu<=1",
        " /relu<=1", "sorted/ <=1", "a/b/c<=1", "sorted/relu<=1@", "sorted/relu<=1@x", "sorted/relu<=1@1.5",
        "sorted/relu<=1@-1", "sorted/relu<=1@16@16", "sorted/relu<=nan", "sorted/relu<=inf", "sorted/relu<=1 or so",
    ],
)  # fmt: skip
def test_another_form_is_refused(text: str) -> None:
    with pytest.raises(InputError) as caught:
        Limit.parse(text)
    assert str(caught.value) == (
        f"a limit is written sorted/relu<=1.10, or sorted/relu<=1.10@16 for one batch size, got {text!r}"
    )


def test_a_limit_on_what_is_not_measured() -> None:
    names, sizes = ["sorted", "relu"], (1, 16)
    for text in ("sorted/relu<=1", "relu/sorted<=1@16", "sorted/relu<=1@1"):
        Limit.parse(text).check(names, sizes)
    for text, name in (("elu/relu<=1", "elu"), ("sorted/elu<=1", "elu")):
        with pytest.raises(InputError, match=f"the limit {text} names {name}, but the candidates are sorted, relu"):
            Limit.parse(text).check(names, sizes)
    for text in ("sorted/relu<=1@4", "sorted/relu<=1@0"):
        with pytest.raises(InputError, match=f"the limit {text} is for a batch size that is not measured"):
            Limit.parse(text).check(names, sizes)


def test_it_is_exceeded_where_the_whole_interval_lies_above() -> None:
    """The ratio of two candidates neither of which is the baseline, in rounds with a mood that both share."""
    random = np.random.default_rng(0)
    moods = {size: random.uniform(1, 3, (10, 6)) for size in (1, 16)}
    noise = {size: np.exp(random.normal(0, 0.02, (10, 6))) for size in (1, 16)}
    medians = {("relu", size): random.uniform(1, 9, (10, 6)) for size in (1, 16)}
    medians |= {("elu", size): 100 * mood for size, mood in moods.items()}
    medians |= {("sorted", 1): 110 * moods[1] * noise[1], ("sorted", 16): 140 * moods[16] * noise[16]}
    measured = report(medians)

    low, high = bootstrap(1.1 * noise[1])
    middle = float(np.median(1.1 * noise[1]))
    assert low < middle < high < 1.3
    for most, exceeded in ((low - 1e-6, True), (low + 1e-6, False), (middle, False), (high + 1e-6, False)):
        limit = Limit(name="sorted", baseline="elu", most=most, batch_size=1)
        (verdict,) = judge(limit, measured)
        assert verdict.exceeded == exceeded
        assert (verdict.limit, verdict.batch_size) == (str(limit), 1)
        assert (verdict.ratio, verdict.low, verdict.high) == pytest.approx((middle, low, high))

    verdicts = judge(Limit.parse("sorted/elu<=1.3"), measured)
    assert [(verdict.batch_size, verdict.exceeded) for verdict in verdicts] == [(1, False), (16, True)]
    assert verdicts[1].low < 1.4 < verdicts[1].high
    assert [verdict.exceeded for verdict in judge(Limit.parse("elu/sorted<=0.8"), measured)] == [True, False]
    assert [verdict.batch_size for verdict in judge(Limit.parse("sorted/elu<=1@16"), measured)] == [16]
