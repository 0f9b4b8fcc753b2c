"""Neurons that make one choice together."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import smx
from smx import data, functional
from smx.training.config import TrainConfig
from smx.training.run import train
from tests.smx.runs import SMALL


@settings(deadline=None, max_examples=40)
@given(neurons=st.integers(1, 12), per=st.integers(1, 14), matched=st.booleans(), seed=st.integers(0, 99))
def test_it_is_the_plain_formula_with_shared_logits(neurons: int, per: int, matched: bool, seed: int) -> None:
    torch.manual_seed(seed)
    layer = smx.Selective(neurons, per=per, selection="matched" if matched else "paper")
    decisions = -(-neurons // per)
    nn.init.normal_(layer.logits)
    z = torch.randn(9, neurons, requires_grad=True)
    g = torch.randn(9, neurons)
    with torch.random.fork_rng():
        torch.manual_seed(seed + 1)
        h = layer(z)
        found = torch.autograd.grad(h, [z, layer.logits], g)
    torch.manual_seed(seed + 1)
    noise = functional.gumbel_noise((decisions, 6))
    group = torch.arange(neurons) // min(per, neurons)
    own = layer.preferences[group]
    expected = functional.selective_plain(z, own, noise[group], layer.temperature, layer.pool, 1, layer.matching)
    torch.testing.assert_close(h, expected)
    for gradient, wanted in zip(found, torch.autograd.grad(expected, [z, layer.logits], g), strict=True):
        torch.testing.assert_close(gradient, wanted, atol=1e-4, rtol=1e-4)
    assert layer.choice.tolist() == [int(layer.decisions[i]) for i in group]


@pytest.mark.parametrize(("per", "decisions"), [("neuron", 10), ("layer", 1), (4, 3), (99, 1)])
def test_select_takes_words_and_numbers(per: int | str, decisions: int) -> None:
    net = smx.select(nn.Sequential(nn.Linear(3, 10), nn.ReLU(), nn.Linear(10, 2)), per=per)
    assert net[1].logits.shape == (decisions, 6)  # type: ignore[index]
    assert smx.commit(net)[1].num_features == 10  # type: ignore[index]


@pytest.mark.parametrize("per", ["row", 0, -1, True])
def test_anything_else_is_refused(per: int | str) -> None:
    with pytest.raises(ValueError, match="per must be neuron, layer or how many"):
        smx.Selective(4, per=per)


def test_channels_of_images_choose_together() -> None:
    net = smx.select(
        nn.Sequential(nn.Conv2d(1, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(96, 2)),
        per=3,
        selection="matched",
        example_input=torch.rand(2, 1, 6, 6),
    )
    net(torch.rand(4, 1, 6, 6)).sum().backward()
    assert net[1].logits.grad.shape == (2, 6)  # type: ignore[index]
    assert len({*smx.commit(net)[1].choice[:3].tolist()}) == 1  # type: ignore[index]


def test_a_selected_network_is_saved_and_loaded(tmp_path: Path) -> None:
    net = smx.select(nn.Sequential(nn.Linear(5, 7), nn.ReLU(), nn.Linear(7, 2)), per=3)
    x = torch.randn(4, 5)
    smx.save(net, tmp_path / "net.pt", example_input=x)
    loaded = smx.load(tmp_path / "net.pt")
    torch.testing.assert_close(loaded(x), net.eval()(x))
    (layer,) = (part for part in loaded.modules() if isinstance(part, smx.Selective))
    assert (layer.per, layer.num_features) == (3, 7)


@pytest.mark.parametrize(
    ("config", "per"),
    [
        (replace(SMALL, per="layer"), 20),
        (replace(SMALL, per=8, phase2_choices="shuffled"), 8),
        (replace(SMALL, per=5, rewind=True), 5),
    ],
)
def test_a_run_chooses_together(tmp_path: Path, config: TrainConfig, per: int) -> None:
    result = train(config, data.load("digits"), tmp_path)
    sizes = [choice.bincount() for choice in result.model.choices.values()]
    assert [int(each.sum()) for each in sizes] == [20, 12]
    for each in sizes:  # phase 2 sorts the neurons, so the sizes of the groups alone tell
        whole = min(per, int(each.sum()))
        assert sum(int(size) % whole for size in each) == int(each.sum()) % whole


@pytest.mark.parametrize(
    ("given", "per", "started"),
    [
        ({}, 10, True),
        ({"per": "neuron"}, 1, True),
        ({"start": "random"}, 10, False),
        ({"per": 4, "start": "elu"}, 4, True),
    ],
)
def test_what_is_given_beside_the_recommended_rule_wins(given: dict[str, Any], per: int, started: bool) -> None:
    net = smx.select(nn.Sequential(nn.Linear(3, 10), nn.ReLU(), nn.Linear(10, 2)), selection="recommended", **given)
    layer = net[1]  # type: ignore[index]
    assert (layer.selection, layer.per, layer.present is not None) == ("matched", per, started)
