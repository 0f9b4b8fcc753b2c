"""Ranks against scipy and against the paper's own table."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from smx.paper import PAPER_POOL, TABLE_1
from smx.reporting import ranks
from smx.reporting.study import Section
from smx.study.grid import Cell
from smx.study.methods import PAPER_METHODS
from tests.reporting.tables import section

ACCURACIES = st.lists(st.integers(0, 20).map(lambda value: value / 20), min_size=1, max_size=9)


@settings(max_examples=40)
@given(ACCURACIES)
def test_ranks_are_scipys(values: list[float]) -> None:
    assert ranks.rank(np.array(values)).tolist() == stats.rankdata([-value for value in values]).tolist()


@settings(max_examples=40)
@given(ACCURACIES, st.randoms())
def test_the_order_of_methods_changes_no_rank(values: list[float], random: object) -> None:
    order = np.random.default_rng(getattr(random, "randint")(0, 99)).permutation(len(values))  # noqa: B009
    array = np.array(values)
    assert ranks.rank(array[order]).tolist() == ranks.rank(array)[order].tolist()


@settings(max_examples=40)
@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=3, max_size=9))
def test_the_correlation_is_scipys(pairs: list[tuple[float, float]]) -> None:
    one, other = np.array(pairs).round(3).T
    found = ranks.correlation(one, other)
    if np.ptp(one) == 0 or np.ptp(other) == 0:
        assert np.isnan(found)
    else:
        assert found == pytest.approx(stats.spearmanr(one, other).statistic)


def as_the_paper(cell: Cell) -> float:
    """Return an accuracy that gives the paper's places; the methods after the third are equal."""
    places = TABLE_1[cell.config.hidden]
    return 0.9 - 0.1 * places.index(cell.method) if cell.method in places else 0.5


@pytest.fixture(scope="module")
def paper() -> Section:
    return section(as_the_paper, hidden=list(TABLE_1), data=["mnist"])


def test_the_papers_own_results_agree_with_it(paper: Section) -> None:
    table = ranks.table_1(paper)
    assert len(table) == 18
    for place in ranks.PLACES:
        assert (table[place] == table[f"paper_{place}"]).all()
    assert table["correlation"].to_numpy() == pytest.approx(1)
    assert (ranks.ranks(paper).sum(axis=1) == 28).all()  # 1 + ... + 7


def test_mrr_of_the_papers_own_results(paper: Section) -> None:
    table = ranks.mrr(paper).set_index("method")
    firsts, seconds, thirds = 5, 4, 4  # smartmixed's, counted in the paper's table 1
    expected = (firsts + seconds / 2 + thirds / 3) / 18
    assert table.loc["smartmixed", "paper"] == pytest.approx(expected)
    assert table.loc["smartmixed", "mrr"] == pytest.approx(expected + 5 / 18 / 5.5)  # elsewhere it shares 4, 5, 6, 7
    assert (table["low"] <= table["mrr"]).all()
    assert (table["mrr"] <= table["high"]).all()
    assert (table["n"] == 18).all()


def test_frequencies_count_each_architecture(paper: Section) -> None:
    table = ranks.rank_frequencies(paper)
    assert table.loc["smartmixed"].tolist() == [5, 4, 4, 5, 0, 0, 0]
    assert (table.sum(axis=1) == 18).all()


def test_equal_accuracies_share_their_place_and_rank() -> None:
    values = {"smartmixed": 0.8, "relu": 0.8, "sigmoid": 0.1}
    found = section(lambda cell: values.get(cell.method, 0.5), hidden=[(8,)])
    assert ranks.ranks(found).loc["8"].to_dict() == {
        **{"smartmixed": 1.5, "relu": 1.5, "sigmoid": 7.0},
        **dict.fromkeys(("tanh", "leaky_relu", "elu", "selu"), 4.5),
    }
    row = ranks.table_1(found).iloc[0]
    assert (row["first"], row["second"]) == ("smartmixed = relu", None)
    assert row["third"] == "tanh = leaky_relu = elu = selu"
    assert row[["paper_first", "paper_second", "paper_third"]].isna().all()


def test_means_are_over_the_seeds_that_all_methods_have() -> None:
    values = {("smartmixed", 0): 0.9, ("relu", 0): 0.8, ("smartmixed", 1): 0.1}
    found = section(
        lambda cell: values.get((cell.method, cell.config.seed)), method=["smartmixed", "relu"], seed=[0, 1]
    )
    assert ranks.ranks(found)["smartmixed"].tolist() == [1, 1]
    assert ranks.table_1(found)["seeds"].tolist() == [1, 1]
    assert ranks.between_seeds(found).empty


def test_an_architecture_without_all_methods_is_left_out() -> None:
    def accuracy(cell: Cell) -> float | None:
        return None if (cell.method, cell.config.hidden) == ("selu", (8, 4)) else 0.5

    assert list(ranks.ranks(section(accuracy)).index) == ["8"]


def test_controls_are_not_ranked_nor_methods_that_lack_architectures() -> None:
    def accuracy(cell: Cell) -> float | None:
        return None if (cell.method, cell.config.hidden) == ("gelu", (8, 4)) else 0.5

    found = section(accuracy, method=[*PAPER_METHODS, "gelu", "silu", "shuffled", "random"])
    assert found.contenders == [*PAPER_METHODS, "silu"]
    assert len(ranks.ranks(found)) == 2


def test_controls_alone_have_no_ranks() -> None:
    found = section(lambda cell: 0.5, method=["shuffled", "random"], seed=[0, 1])
    assert ranks.ranks(found).empty
    assert ranks.table_1(found).empty
    assert ranks.between_seeds(found).empty
    assert ranks.mrr(found).empty


def test_seeds_agree_with_each_other_if_the_order_is_the_same() -> None:
    order = dict(zip(PAPER_METHODS, range(7), strict=True))
    same = section(lambda cell: order[cell.method] / 10 + cell.config.seed / 100, seed=[0, 1, 2])
    assert ranks.between_seeds(same)["correlation"].to_numpy() == pytest.approx(1)
    assert ranks.between_seeds(same)["pairs"].tolist() == [3, 3]
    turned = section(lambda cell: order[cell.method] / 10 * (-1) ** cell.config.seed, seed=[0, 1])
    assert ranks.between_seeds(turned)["correlation"].to_numpy() == pytest.approx(-1)


def test_one_cell_each_has_no_interval() -> None:
    table = ranks.mrr(section(lambda cell: 0.5, hidden=[(8,)]))
    assert table["mrr"].to_numpy() == pytest.approx(1 / 4)
    assert table[["low", "high", "paper"]].isna().all(axis=None)


def test_the_bootstrap_draws_seeds_too_and_the_same_each_time() -> None:
    def accuracy(cell: Cell) -> float:
        return 0.5 + 0.1 * (cell.config.seed == 0) * (cell.method == "relu") - 0.04 * (cell.method == "relu")

    found = section(accuracy, hidden=[(8,)], method=["smartmixed", "relu"], seed=[0, 1, 2, 3])
    table = ranks.mrr(found).set_index("method")
    assert table.loc["relu", "mrr"] == 0.5  # mean 0.485 against 0.5
    assert table.loc["relu", ["low", "high"]].tolist() == [0.5, 1]  # with two draws of seed 0 it is first
    assert ranks.mrr(found).equals(ranks.mrr(found))


def test_the_best_fixed_activation_is_chosen_by_validation() -> None:
    found = section(lambda cell: 0.5)
    found.cells["validation_accuracy"] = [0.9 if method == "tanh" else 0.1 for method in found.cells["method"]]
    found.cells.loc[found.cells["method"] == "smartmixed", "validation_accuracy"] = 1.0
    assert ranks.best_fixed(found) == {"8": "tanh", "8-4": "tanh"}


def test_accuracy_has_mean_and_deviation_in_the_papers_order() -> None:
    found = section(lambda cell: 0.5 + 0.1 * cell.config.seed, seed=[0, 1, 2], method=[*reversed(PAPER_METHODS)])
    table = ranks.accuracy(found)
    assert table["method"].tolist() == [*PAPER_METHODS] * 2
    assert table["mean"].to_numpy() == pytest.approx(0.6)
    assert table["deviation"].to_numpy() == pytest.approx(0.1)
    assert (table["n"] == 3).all()
    assert ranks.accuracy(section(lambda cell: 0.5))["deviation"].isna().all()


def test_other_data_has_no_paper() -> None:
    found = section(as_the_paper, hidden=[(512,)], data=["fashion-mnist"])
    assert ranks.paper_places(found) == {}
    assert set(PAPER_POOL) < set(found.methods)
