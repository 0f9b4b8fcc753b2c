"""Prices: held against a made-up machine whose costs are known formulas."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from torch import nn

import smx
from smx.activations import get
from smx.errors import InputError
from smx.paper import PAPER_POOL
from smx.prices import BOTH, CURVES, ENDS, EXPONENTIAL, FORMS, LINES, PARTS, RIDERS, STACKED, Prices, load_prices
from smx.workflows.price_tables import prices_of

BATCHES, WIDTHS, STACKS = (1, 16, 128), (8, 64, 512), (1, 2, 4)
START, LARGE, FACTOR = 5e-6, 1e-4, 1.5
COSTS = {"relu": 1, "sigmoid": 6, "tanh": 5, "leaky_relu": 2, "elu": 9, "selu": 10}
TOGETHER = {"elu": 4, "selu": 5, LINES: 3, CURVES: 6, BOTH: 7}


def dense(inputs: int, neurons: int, batch: int) -> float:
    return 1e-6 + 1e-11 * batch * inputs * neurons


def own(name: str, neurons: float, batch: int) -> float:
    return 1e-6 + 1e-10 * COSTS[name] * batch * neurons


def alone(batch: int, **groups: int) -> float:
    return sum(own(name, size, batch) for name, size in groups.items())


def fused(name: str, neurons: int, batch: int) -> float:
    return own(name, neurons, batch) - 1e-6


def shared(name: str, neurons: int, batch: int) -> float:
    return 4e-6 + 1e-10 * TOGETHER[name] * batch * neurons


def split(neurons: int, batch: int, parts: int = 2) -> float:
    return 2e-6 + 1e-10 * batch * neurons + (parts - 2) * 0.5e-6


def move(neurons: float, batch: int) -> float:
    return 8e-6 + 5e-10 * batch * 2 * neurons


def large(weights: float) -> float:
    """What more weights than one of the stacked layers has take besides."""
    return LARGE * max(0.0, weights / STACKED**2 - (1 + 2 * ENDS / STACKED))


def made_up() -> Prices:
    """What the workflow makes of the times of the small networks on this machine."""
    times: dict[tuple[str, int], float] = {}
    for b in BATCHES:

        def add(name: str, *parts: float, b: int = b) -> None:
            times[name, b] = START + sum(parts)

        for w in WIDTHS:
            first, last = dense(ENDS, w, b), dense(w, ENDS, b)
            add(f"head {w}", last)
            add(f"plain {w}", first, last)
            for v in WIDTHS:
                add(f"dense {v} {w}", dense(ENDS, v, b), dense(v, w, b), last, large(v * w + ENDS * (v + w)))
            for name in COSTS:
                add(f"fused {name} {w}", first, fused(name, w, b), last)
                add(f"own {name} {w}", first, split(w, b), own(name, w, b), last)
            for name in TOGETHER:
                add(f"shared {name} {w}", first, split(w, b), shared(name, w, b), last)
            add(f"split {w}", first, split(w, b), last)
            add(f"parts {w}", first, split(w, b, PARTS), last)
            add(f"move {w}", first, own("relu", w, b), own("tanh", w / 2, b), move(w / 2, b), last)
        for n in (0, *STACKS):
            layers = n * dense(STACKED, STACKED, b)
            stack = dense(ENDS, STACKED, b) + layers + dense(STACKED, ENDS, b)
            stack += large(STACKED * (n * STACKED + 2 * ENDS))
            add(f"stack {n}", stack)
            mixture = split(STACKED, b, 3) + alone(b, tanh=STACKED // 4, relu=STACKED // 4)
            mixture += shared(CURVES, STACKED // 2, b)
            add(f"mixed {n}", stack, FACTOR * (n + 1) * mixture)
    return prices_of(
        times, names=PAPER_POOL, batch_sizes=BATCHES, widths=WIDTHS, stacks=STACKS,
        machine={"processor": "made up"}, provider="cpu", threads=1,
    )  # fmt: skip


PRICES = made_up()


@pytest.mark.parametrize("batch", [1, 5, 16, 100, 128, 500])
def test_a_formula_that_is_linear_in_the_sizes_is_found_again(batch: int) -> None:
    assert PRICES.linear(100, 300, batch) == pytest.approx(dense(100, 300, batch))
    assert PRICES.linear(1000, 10, batch) == pytest.approx(dense(1000, 10, batch))
    assert PRICES.operator("elu", 20, batch) == pytest.approx(own("elu", 20, batch))
    for groups, form, expected in (
        ({"tanh": 100}, "shared", fused("tanh", 100, batch)),
        ({"elu": 100}, "operators", fused("elu", 100, batch)),
        ({"elu": 100}, "shared", shared("elu", 100, batch)),
        ({"relu": 40, "elu": 60, "selu": 0}, "operators", split(100, batch) + alone(batch, relu=40, elu=60)),
        ({"relu": 40, "elu": 60}, "shared", split(100, batch) + own("relu", 40, batch) + shared("elu", 60, batch)),
        ({"relu": RIDERS, "elu": 60}, "shared", shared(CURVES, 60 + RIDERS, batch)),
        ({"relu": 40, "elu": 60}, "joined", shared(CURVES, 100, batch)),
        ({"relu": 40, "leaky_relu": 60}, "joined", shared(LINES, 100, batch)),
        ({"selu": 40, "leaky_relu": 60}, "in place", shared(BOTH, 100, batch)),
        (
            {"tanh": 30, "relu": 70, "sigmoid": 20},  # sigmoid becomes tanh
            "operators",
            split(120, batch) + alone(batch, tanh=50, relu=70),
        ),
        (
            {"tanh": 30, "relu": 70, "leaky_relu": 40, "elu": 50},
            "operators",
            split(190, batch, 4) + alone(batch, tanh=30, relu=70, leaky_relu=40, elu=50),
        ),
        (
            {"tanh": 30, "relu": 70, "elu": 50},
            "in place",
            shared(CURVES, 150, batch) + own("tanh", 30, batch) + move(30, batch),
        ),
    ):  # fmt: skip
        assert PRICES.activations(groups, batch_size=batch, form=form) == pytest.approx(expected), (groups, form)


@pytest.mark.parametrize("batch", [1, 64])
def test_a_network_is_its_layers_and_what_its_size_costs(batch: int) -> None:
    layers = [{"relu": 512}, {"elu": 256, "tanh": 256}]
    weights = 784 * 512 + 512 * 512 + 512 * 10
    expected = START + large(weights) + dense(784, 512, batch) + dense(512, 512, batch)
    expected += dense(512, 10, batch) + FACTOR * fused("relu", 512, batch)
    expected += FACTOR * (split(512, batch) + own("tanh", 256, batch) + shared("elu", 256, batch))
    assert PRICES.predict(layers, inputs=784, outputs=10, batch_size=batch) == pytest.approx(expected)


def test_prices_relative_to_relu() -> None:
    tanh, relu, unknown, elu = PRICES.relative(("tanh", "relu", "gelu", "elu"))
    assert relu == 1
    assert unknown == max(PRICES.relative(PAPER_POOL))
    ratios = [
        (dense(256, 256, b) + fused("tanh", 256, b)) / (dense(256, 256, b) + fused("relu", 256, b)) for b in BATCHES
    ]
    assert tanh == pytest.approx(math.prod(ratios) ** (1 / len(ratios)))
    assert 1 < tanh < elu
    (at_one,) = PRICES.relative(("tanh",), batch_size=1)
    assert at_one == pytest.approx(ratios[0])
    at_one, at_many = (PRICES.relative(("elu",), batch_size=b)[0] for b in (1, 128))
    relu_time = dense(256, 256, 1) + fused("relu", 256, 1)
    assert at_one == pytest.approx((dense(256, 256, 1) + fused("elu", 256, 1)) / relu_time), "fused at batch 1"
    relu_time = dense(256, 256, 128) + fused("relu", 256, 128)
    assert at_many == pytest.approx((dense(256, 256, 128) + shared("elu", 256, 128)) / relu_time)


def test_the_best_form() -> None:
    def best(groups: dict[str, int], *batches: int) -> str:
        return PRICES.best_form(groups, inputs=64, batch_sizes=batches)

    assert best({"relu": 64}, 1, 16) == "shared", "all are the same, so it stays as in sorted"
    assert best({"elu": 256}, 1) == "operators"
    assert best({"elu": 256}, 128) == "shared"
    assert best({"relu": 40, "elu": 40, "leaky_relu": 40, "selu": 40}, 1) in ("joined", "in place")
    assert set(FORMS) >= {best({"tanh": 40, "elu": 40}, 16)}


def test_a_file_is_read_back(tmp_path: Path) -> None:
    path = tmp_path / "prices.json"
    path.write_text(PRICES.to_json())
    found = load_prices(path)
    assert (found.batch_sizes, found.widths, found.machine) == (BATCHES, WIDTHS, {"processor": "made up"})
    np.testing.assert_allclose(found.dense, PRICES.dense, rtol=1e-3)
    np.testing.assert_allclose(found.relative(PAPER_POOL), PRICES.relative(PAPER_POOL), rtol=1e-2)


def test_the_default_knows_the_papers_activations() -> None:
    prices = load_prices()
    assert set(prices.fused) >= set(PAPER_POOL)
    assert set(prices.shared) == {*EXPONENTIAL, LINES, CURVES, BOTH}
    assert all(0.5 < price < 10 for price in prices.relative(PAPER_POOL))
    assert prices.predict([{"relu": 512}], inputs=784, outputs=10, batch_size=1) > 0


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"format": "other"}, "its format is not smx-prices"),
        ({"version": 2}, "it has format version 2, this smx reads 1; upgrade smartmixed"),
        ({"split": [[1.0]]}, "expected a table of shape (3, 3) of numbers below 10000, got (1, 1)"),
        ({"widths": [8, 8, 512]}, "widths must be at least two numbers in ascending order"),
        ({"shared": {}}, "shared lacks lines, curves, lines and curves"),
        ({"more": 1}, "unexpected keyword argument"),
        ({"machine": 3}, "Expected object, got int"),
        ({"split": [[1e308] * 3] * 3}, "of numbers below 10000"),
        ({"threads": "two"}, "Expected int | null, got str"),
        ({"widths": [8, 64.5, 512]}, "Expected int, got float"),
    ],
)
def test_what_is_no_price_file(change: dict[str, object], why: str, tmp_path: Path) -> None:
    path = tmp_path / "prices.json"
    path.write_text(json.dumps({**json.loads(PRICES.to_json()), **change}))
    with pytest.raises(InputError, match=re.escape(why)) as caught:
        load_prices(path)
    assert str(path) in str(caught.value)


def test_activations_are_named_by_themselves_too() -> None:
    pool = [get(name) for name in ("relu", "tanh")]
    assert PRICES.relative(pool) == PRICES.relative(("relu", "tanh"))
    prices = dict(zip(pool, PRICES.relative(pool), strict=True))
    net = nn.Sequential(smx.Selective(3, pool))
    assert 1 < smx.pricing.ExpectedPrice(net, prices)().item() < prices[pool[1]]


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none.json does not exist; expected a price file"):
        load_prices(tmp_path / "none.json")
    for text in ("{", "[" * 100_000, "[]", '{"format": NaN}'):
        (tmp_path / "text.json").write_text(text)
        with pytest.raises(InputError, match=r"is no price file .*; write one with smx price --out FILE"):
            load_prices(tmp_path / "text.json")


def test_below_nothing_is_nothing() -> None:
    cheap = replace(PRICES, split=-PRICES.split, part=-PRICES.part)
    groups = {"relu": 40, "tanh": 60}
    expected = own("relu", 40, 16) + own("tanh", 60, 16)
    assert cheap.activations(groups, batch_size=16, form="operators") == pytest.approx(expected)
