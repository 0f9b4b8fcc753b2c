"""Comparisons of methods against scipy and by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from smx.reporting import comparisons, ranks
from smx.reporting.source import TABLE, study
from smx.study.grid import Cell
from smx.study.methods import CONTROLS
from tests.reporting.tables import DEEP, accuracies, frame, made, section

P_VALUES = st.lists(st.floats(0, 1), max_size=12)


def test_holm_by_hand() -> None:
    p = pd.Series([0.01, 0.04, float("nan"), 0.03, 0.005], index=list("abcde"))
    assert comparisons.holm(p).to_list() == pytest.approx([0.03, 0.06, float("nan"), 0.06, 0.02], nan_ok=True)
    assert list(comparisons.holm(p).index) == list("abcde")


@settings(max_examples=60)
@given(P_VALUES)
def test_holm_is_its_definition(values: list[float]) -> None:
    found = comparisons.holm(pd.Series(values, dtype=float))
    for value, corrected in zip(values, found, strict=True):
        # The largest of (how many are not smaller) * p over the p up to this one.
        expected = max(p * sum(other >= p for other in values) for p in values if p <= value)
        assert corrected == pytest.approx(min(1, expected))


def noisy(cell: Cell) -> float:
    """Return an accuracy: relu is 0.01 above the others, and each cell has noise of its own."""
    noise = np.random.default_rng(list(cell.id.encode())).normal(0, 0.002)
    return 0.8 + 0.01 * (cell.method == "relu") + float(noise)


def test_a_difference_is_over_pairs_of_architecture_and_seed() -> None:
    found = section(noisy, hidden=DEEP, seed=[0, 1])
    row = comparisons.compare(found, "smartmixed", "relu")
    assert row is not None
    table = found.cells.pivot_table(index=["architecture", "seed"], columns="method", values="test_accuracy")
    pairs = 100 * (table["smartmixed"] - table["relu"])
    assert row["difference"] == pytest.approx(pairs.mean())
    assert row["p"] == pytest.approx(stats.wilcoxon(pairs.groupby(level=0).mean()).pvalue)
    assert row["low"] < -1 < row["high"] < 0
    assert (row["pairs"], row["architectures"], row["wins"]) == (16, 8, 0)


def test_only_pairs_that_both_exist_count() -> None:
    def accuracy(cell: Cell) -> float | None:
        if (cell.method, cell.config.seed, len(cell.config.hidden)) in {("relu", 0, 1), ("smartmixed", 1, 2)}:
            return None
        return 0.8 if cell.method == "relu" else 0.7 + 0.1 * cell.config.seed

    found = section(accuracy, method=["smartmixed", "relu", "sigmoid"], seed=[0, 1])
    pairs = comparisons.differences(found, "smartmixed", "relu")
    assert pairs[["architecture", "seed"]].to_numpy().tolist() == [["8", 1], ["8-4", 0]]
    assert pairs["difference"].to_numpy() == pytest.approx([0, -10])
    assert comparisons.compare(found, "smartmixed", "tanh") is None
    assert comparisons.comparisons(found)["other"].tolist() == ["relu", "sigmoid"]
    assert comparisons.comparisons(found, "gelu").empty


def test_protocols_are_never_mixed() -> None:
    def result(cell: Cell) -> dict[str, float]:
        return accuracies({"standard": 0.5, "author": 0.9}[cell.config.protocol] + 0.1 * (cell.method == "relu"))

    axes: dict[str, Any] = {
        "protocol": ["standard", "author"],
        "lr": [0.1, 0.2],
        "method": ["smartmixed", "relu"],
        "seed": [0, 1],
    }
    sections = made(result, **axes).sections
    assert [each.title for each in sections] == [
        f"protocol = {protocol}, lr = {lr}" for protocol in ("standard", "author") for lr in (0.1, 0.2)
    ]
    for each in sections:
        row = comparisons.comparisons(each).iloc[0]
        assert row["difference"] == pytest.approx(-10)
        assert row["pairs"] == 2


def test_what_a_method_sets_itself_is_compared() -> None:
    rows = [
        frame(lambda cell: accuracies(0.5), method=["smartmixed", "relu", *CONTROLS]),
        frame(lambda cell: accuracies(0.5), method=["smartmixed"], temperature=[0.1], batch_size=[32]).assign(
            method="cold"
        ),
    ]
    (only,) = study(Path("made.csv"), TABLE, pd.concat(rows)).sections
    assert only.methods == ["smartmixed", "relu", *CONTROLS, "cold"]
    assert only.title == ""


def test_other_settings_of_known_methods_are_other_sections() -> None:
    rows = [
        frame(lambda cell: accuracies(0.5), method=[method], lr=[lr], tensorboard=[method == "relu"])
        for method, lr in (("smartmixed", 0.1), ("relu", 0.2), ("shuffled", 0.1))
    ]
    found = study(Path("made.csv"), TABLE, pd.concat(rows)).sections
    assert [(each.title, each.methods) for each in found] == [
        ("lr = 0.1", ["smartmixed", "shuffled"]),
        ("lr = 0.2", ["relu"]),
    ]


def test_t_tests_within_an_architecture_are_scipys() -> None:
    found = section(noisy, method=["smartmixed", "relu", "tanh"], seed=[0, 1, 2])
    table = comparisons.within_architectures(found)
    assert len(table) == 4
    for row in table.to_dict("records"):
        own = found.cells[found.cells["architecture"] == row["architecture"]]
        one, two = (own[own["method"] == row[name]]["test_accuracy"].to_numpy() for name in ("method", "other"))
        tested = stats.ttest_rel(100 * one, 100 * two)
        assert row["p"] == pytest.approx(tested.pvalue)
        assert (row["low"], row["high"]) == pytest.approx(tuple(tested.confidence_interval()))
    assert table["p_corrected"].tolist() == comparisons.holm(table["p"]).tolist()
    assert comparisons.within_architectures(section(noisy)).empty  # one seed


def test_friedman_is_scipys() -> None:
    found = section(noisy, hidden=DEEP)
    columns = found.cells.pivot_table(index="architecture", columns="method", values="test_accuracy").to_numpy().T
    expected = stats.friedmanchisquare(*columns)
    tested = comparisons.friedman(found)
    assert (tested["statistic"], tested["p"]) == pytest.approx((expected.statistic, expected.pvalue))
    assert (tested["n"], tested["methods"]) == (8, 7)
    assert comparisons.friedman(section(lambda cell: 0.5, hidden=DEEP))["p"] == 1
    assert np.isnan(comparisons.friedman(section(noisy))["p"])  # two architectures


def test_the_best_fixed_activation_is_another_one_in_each_architecture() -> None:
    best = {1: "tanh", 2: "elu"}

    def accuracy(cell: Cell) -> float:
        return 0.9 if cell.method == best[len(cell.config.hidden)] else 0.7

    found = section(accuracy)
    assert ranks.best_fixed(found) == {"8": "tanh", "8-4": "elu"}
    row = comparisons.compare(found, "smartmixed", comparisons.BEST_FIXED)
    assert row is not None
    assert row["difference"] == pytest.approx(-20)
    assert row["pairs"] == 2
