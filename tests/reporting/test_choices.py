"""Shares of activations, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from smx.paper import PAPER_POOL
from smx.reporting import choices, connections
from smx.reporting.study import Section
from smx.study.grid import Cell
from tests.reporting.tables import DEEP, accuracies, chosen, made


def drifting(depth: float) -> dict[str, float]:
    """Return shares that go evenly from 0.5 relu and 0.3 elu to 0.1 relu and 0.7 elu."""
    return {**dict.fromkeys(PAPER_POOL, 0.05), "relu": 0.5 - 0.4 * depth, "elu": 0.3 + 0.4 * depth}


@pytest.fixture(scope="module")
def deep() -> Section:
    (only,) = made(lambda cell: chosen(cell, drifting), hidden=DEEP, seed=[0, 1], method=["smartmixed"]).sections
    return only


def test_shares_know_their_layer_and_depth(deep: Section) -> None:
    table = choices.shares(deep)
    own = table[(table["architecture"] == "8-4-4") & (table["activation"] == "elu") & (table["seed"] == 1)]
    assert own["layer"].tolist() == [1, 2, 3]
    assert own["depth"].tolist() == [0, 0.5, 1]
    assert own["name"].tolist() == ["layer1", "layer2", "layer3"]
    assert own["share"].to_numpy() == pytest.approx([0.3, 0.5, 0.7])
    assert (choices.shares_by_layer(deep)["n"] == 2).all()
    assert choices.shares(deep, "relu").empty


def test_many_layers_keep_their_order() -> None:
    (only,) = made(lambda cell: chosen(cell, drifting), hidden=[(4,) * 12], method=["smartmixed"]).sections
    own = choices.shares(only)
    assert own[own["activation"] == "elu"]["share"].is_monotonic_increasing


def test_shares_by_depth_are_interpolated(deep: Section) -> None:
    table = choices.shares_by_depth(deep)
    assert table["activation"].unique().tolist() == list(PAPER_POOL)
    elu = table[table["activation"] == "elu"]
    assert elu["depth"].to_numpy() == pytest.approx(np.linspace(0, 1, 21))
    for column in ("share", "low", "high"):  # all architectures are the same, so there is nothing to draw
        assert elu[column].to_numpy() == pytest.approx(0.3 + 0.4 * elu["depth"])


def test_one_deep_architecture_has_no_band() -> None:
    (only,) = made(lambda cell: chosen(cell, drifting), hidden=[(8,), (8, 4)], method=["smartmixed"]).sections
    assert choices.shares_by_depth(only)[["low", "high"]].isna().all(axis=None)
    assert choices.trends(only).empty
    assert choices.preferences(only).empty


def test_trends(deep: Section) -> None:
    early, late = choices.trends(deep).to_dict("records")
    assert early["activations"] == "relu + leaky_relu"
    assert (early["correlation"], late["correlation"]) == pytest.approx((-1, 1))
    assert (early["first"], early["last"], early["change"]) == pytest.approx((0.55, 0.15, -0.4))
    assert (late["first"], late["last"], late["change"]) == pytest.approx((0.35, 0.75, 0.4))
    assert (late["change_low"], late["change_high"]) == pytest.approx((0.4, 0.4))
    assert (late["architectures"], late["cells"]) == (6, 12)
    assert late["p"] == pytest.approx(2 / 2**6)  # all six of one sign


def test_preferences(deep: Section) -> None:
    first, last = choices.preferences(deep).to_dict("records")
    assert (first["early"], first["late"], first["difference"]) == pytest.approx((0.55, 0.35, 0.2))
    assert (last["early"], last["late"], last["difference"]) == pytest.approx((0.15, 0.75, -0.6))


def test_an_activation_is_avoided(deep: Section) -> None:
    found = choices.avoided(deep)
    assert found is not None
    assert (found["share"], found["expected"], found["largest"]) == pytest.approx((0.05, 1 / 6, 0.05))
    assert found["p"] == pytest.approx(2 / 2**8)
    assert choices.avoided(deep, "gelu") is None


def test_another_pool_has_no_trends_of_the_papers() -> None:
    def shares(depth: float) -> dict[str, float]:
        return {"gelu": 0.5, "silu": 0.5}

    study = made(lambda cell: chosen(cell, shares), hidden=DEEP, pool=[("gelu", "silu")], method=["smartmixed"])
    (only,) = study.sections
    assert choices.trends(only).empty
    assert choices.avoided(only) is None
    assert len(choices.shares_by_depth(only)) == 42


def test_seeds_agree_by_their_shares() -> None:
    def result(cell: Cell) -> dict[str, object]:
        first = (0.5, 0.7, 0.5)[cell.config.seed]
        return {**accuracies(0.5), "shares": {"layer1": {"relu": first, "elu": 1 - first}}}

    (only,) = made(result, hidden=[(10,)], seed=[0, 1, 2], method=["smartmixed"]).sections
    (row,) = choices.agreement(only).to_dict("records")
    assert row["agreement"] == pytest.approx((0.8 + 1 + 0.8) / 3)
    assert row["chance"] == pytest.approx(0.5)  # 0.5 * 0.7 + 0.5 * 0.3, and 0.5 * 0.5 + 0.5 * 0.5
    assert row["pairs"] == 3


def test_shares_by_epoch_are_means_over_seeds_of_the_epochs_that_all_have() -> None:
    def result(cell: Cell) -> dict[str, object]:
        lines = ([0.2, 0.4], [0.4, 0.6, 0.9])[cell.config.seed]
        return {**accuracies(0.5), "shares_by_epoch": {"layer1": {"relu": lines, "elu": lines}}}

    (only,) = made(result, hidden=[(10,)], seed=[0, 1], method=["smartmixed"]).sections
    table = choices.shares_by_epoch(only, "10")
    assert table["epoch"].tolist() == [1, 2, 1, 2]
    assert table["share"].to_numpy() == pytest.approx([0.3, 0.5, 0.3, 0.5])
    assert choices.shares_by_epoch(only, "20").empty


SUMS = [[0.0, 1.0, 2.0], [0.0, 0.0, 0.0], [3.0, 1.0, -4.0]]
COUNTS = [[0.0, 10.0, 10.0], [0.0, 0.0, 0.0], [10.0, 10.0, 20.0]]


def test_weights_between_activations() -> None:
    def result(cell: Cell) -> dict[str, object]:
        scale = cell.config.seed + 1
        sums = [[scale * value for value in row] for row in SUMS]
        return {**accuracies(0.5), "connections": {"sum": sums, "count": COUNTS}}

    pool = ("relu", "tanh", "elu")
    study = made(result, hidden=[(10, 10)], seed=[0, 1], pool=[pool], method=["smartmixed", "relu"])
    (only,) = study.sections
    table = connections.weights(only).set_index(["sender", "receiver"])
    assert table.loc[("relu", "tanh"), "mean"] == pytest.approx(3 / 20)
    assert table.loc[("relu", "tanh"), "count"] == 20
    assert table.loc[("elu", "elu"), "mean"] == pytest.approx(-12 / 40)
    assert np.isnan(table.loc[("relu", "relu"), "mean"])
    assert table.loc[("relu", "relu"), "cells"] == 0
    found = connections.out_of(only)
    assert found is not None
    assert (found["mean"], found["rest"]) == pytest.approx((0, 1.5 * 3 / 20))
    assert (found["rank"], found["senders"], found["cells"]) == (2, 2, 2)
    assert connections.out_of(only, "tanh") is None
    assert connections.weights(only, "shuffled").empty
