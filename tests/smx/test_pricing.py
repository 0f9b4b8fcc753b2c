"""The expected price against its formula in NumPy, and what it does to the choices."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import smx
from smx import data
from smx.errors import InputError
from smx.layers import selectives
from smx.prices import load_prices
from smx.pricing import ExpectedPrice
from smx.training.run import TrainResult, train
from tests.smx.runs import SMALL

PRICES = {"relu": 1.0, "sigmoid": 3.0, "tanh": 2.5, "leaky_relu": 1.1, "elu": 2.0, "selu": 2.2}


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 99), per=st.integers(1, 5), selection=st.sampled_from(["paper", "matched"]))
def test_it_is_the_formula(seed: int, per: int, selection: str) -> None:
    torch.manual_seed(seed)
    net = nn.Sequential(smx.Selective(7, per=per, selection=selection), smx.Selective(4, ("relu", "elu")))
    for parameter in net.parameters():
        nn.init.normal_(parameter)
    costs = []
    for layer in selectives(net):
        own = layer.logits.detach().double().numpy()
        shared = 0 if layer.layer_logits is None else layer.layer_logits.detach().double().numpy()
        weights = np.exp(own + shared)
        weights /= weights.sum(1, keepdims=True)
        price = np.array([PRICES[activation.name] for activation in layer.pool])
        costs += [float(weights[i // layer.per] @ price) for i in range(layer.num_features)]
    assert ExpectedPrice(net, PRICES)().item() == pytest.approx(np.mean(costs), rel=1e-6)


def test_its_gradient_makes_the_cheapest_likelier() -> None:
    net = nn.Sequential(nn.Linear(3, 5), smx.Selective(5))
    ExpectedPrice(net, PRICES)().backward()  # type: ignore[no-untyped-call]
    (layer,) = selectives(net)
    assert layer.logits.grad is not None
    assert layer.logits.grad.argmin(1).tolist() == [0] * 5  # down is up for ReLU
    assert net[0].weight.grad is None


def test_what_is_refused() -> None:
    with pytest.raises(ValueError, match="no Selective"):
        ExpectedPrice(nn.Linear(2, 2), PRICES)
    with pytest.raises(ValueError, match="selu has no price; known are relu"):
        ExpectedPrice(nn.Sequential(smx.Selective(2, ("relu", "selu"))), {"relu": 1.0})
    for price in (-1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match=r"a price must be a number from 0 on, got .* for relu"):
            ExpectedPrice(nn.Sequential(smx.Selective(2, ("relu",))), {"relu": price})
    for prices in (load_prices(), load_prices().relative(("relu",)), "prices.json"):
        with pytest.raises(ValueError, match=r"as dict\(zip\(pool, smx.load_prices\(\).relative\(pool\)\)\), got"):
            ExpectedPrice(nn.Sequential(smx.Selective(2, ("relu",))), prices)  # type: ignore[arg-type]


def test_a_run_chooses_by_price(tmp_path: Path) -> None:
    dear = train(replace(SMALL, phase1_epochs=2), data.load("digits"), tmp_path / "dear")
    cheap = train(replace(SMALL, phase1_epochs=2, price_weight=100.0), data.load("digits"), tmp_path / "cheap")

    def price(result: TrainResult) -> float:
        names = result.model.pool
        prices = load_prices().relative(names)
        return float(np.mean([prices[int(k)] for choice in result.model.choices.values() for k in choice]))

    least = min(load_prices().relative(cheap.model.pool))
    assert price(cheap) - least < 0.1 * (price(dear) - least)
    assert cheap.rows[0].train_loss < 5  # the price is no part of the loss that is reported


def test_a_price_file_that_is_missing_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist; expected a price file"):
        train(replace(SMALL, price_weight=1.0, price="nofile.json"), data.load("digits"), tmp_path / "run")
    assert not (tmp_path / "run").exists()
