"""Intervals and tests of grouped values against scipy, and against a bootstrap that is written out."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from smx.reporting.resampling import against_zero, by_group, draw, interval, mean, summary, t_test

VALUES = np.random.default_rng(1).normal(1, 1, 20)


def test_values_of_one_group_have_scipys_interval() -> None:
    found = interval([VALUES], draws=20000)
    expected = stats.bootstrap((VALUES,), np.mean, method="percentile", n_resamples=20000, random_state=1)
    assert found == pytest.approx(expected.confidence_interval, abs=0.02)


def test_groups_of_one_value_are_as_one_group() -> None:
    assert interval([VALUES[i : i + 1] for i in range(20)], draws=20000) == pytest.approx(
        interval([VALUES], draws=20000), abs=0.02
    )


def test_groups_are_drawn_and_then_their_values() -> None:
    groups = [VALUES[:8], VALUES[8:10] + 1, VALUES[10:11] - 1]
    generator = np.random.default_rng(2)
    draws = []
    for _ in range(4000):
        drawn = [groups[i] for i in generator.integers(3, size=3)]
        draws.append(np.mean([generator.choice(group, len(group)).mean() for group in drawn]))
    assert interval(groups, draws=20000) == pytest.approx(np.quantile(draws, [0.025, 0.975]), abs=0.05)


def test_a_group_with_more_values_counts_no_more() -> None:
    assert mean(by_group([1, 1, 1, 4], "aaab")) == 2.5


def test_one_value_has_no_interval_and_no_test() -> None:
    found = summary([np.array([0.3])], "value")
    assert np.isnan([found["low"], found["high"], found["p"]]).all()
    assert (found["value"], found["test"], found["values"]) == (0.3, "none", 1)
    assert np.isnan(mean([]))


def test_weights_of_draws_sum_to_one() -> None:
    groups, positions, weights = draw(np.array([3, 1]), 100)
    assert weights.sum(2) == pytest.approx(1)
    sizes = np.array([3, 1])[groups]
    assert ((positions < sizes[:, :, None]) | (weights == 0)).all()
    assert set(positions[groups == 0].ravel()) == {0, 1, 2}


def test_six_architectures_are_tested_by_their_means() -> None:
    groups = [VALUES[i : i + 3] for i in range(0, 18, 3)]
    p, test, n = against_zero(groups)
    assert p == pytest.approx(stats.wilcoxon([group.mean() for group in groups]).pvalue)
    assert (test, n) == ("Wilcoxon, 6 architectures", 6)


def test_few_architectures_are_tested_by_their_pairs() -> None:
    p, test, n = against_zero([VALUES[:5], VALUES[5:10]])
    assert p == pytest.approx(stats.wilcoxon(VALUES[:10]).pvalue)
    assert (test, n) == ("Wilcoxon, 10 pairs of architecture and seed", 10)


def test_fewer_than_six_values_have_students_test_and_interval() -> None:
    for groups, unit in (([VALUES[:5]], "seeds"), ([VALUES[:2], VALUES[2:5]], "pairs of architecture and seed")):
        p, test, n = against_zero(groups)
        expected = stats.ttest_1samp(VALUES[:5], 0)
        low, high = expected.confidence_interval()
        assert p == pytest.approx(expected.pvalue)
        assert (test, n) == (f"t test, 5 {unit}", 5)
        shift = mean(groups) - VALUES[:5].mean()
        assert interval(groups) == pytest.approx((low + shift, high + shift))


def test_few_equal_values_have_no_spread_to_judge_by() -> None:
    for value, p in ((0.0, 1.0), (0.3, float("nan"))):
        bounds, found = t_test(np.full(3, value))
        assert found == pytest.approx(p, nan_ok=True)
        assert np.isnan([*bounds, *interval([np.full(3, value)])]).all()


def test_equal_values_are_no_evidence() -> None:
    assert against_zero([np.full(3, 0.1 + 0.2) - 0.3] * 6)[0] == 1


def test_summary_tests_against_another_value_than_0() -> None:
    assert summary([VALUES], "value", 1.0)["p"] == against_zero([VALUES - 1])[0]
    assert summary([VALUES], "value", 1.0)["value"] == pytest.approx(VALUES.mean())
