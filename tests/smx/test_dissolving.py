"""Small groups are dissolved: against a plain loop, by hand, and in the whole run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import smx
from smx import data
from smx.convert import dissolve, dissolved
from smx.layers import selectives
from smx.training.run import train
from tests.smx.runs import SMALL


def layer_of(logits: Tensor | list[list[float]]) -> smx.Selective:
    logits = torch.as_tensor(logits, dtype=torch.float32)
    layer = smx.Selective(len(logits), smx.PAPER_POOL[: logits.shape[1]])
    with torch.no_grad():
        layer.logits.copy_(logits)
    return layer


def plain(logits: np.ndarray, min_share: float, max_groups: int) -> list[int]:
    """Drop the smallest group, one after the other; each neuron looks at its logits from the largest down."""
    order = np.argsort(-logits, axis=1, kind="stable")
    gone: set[int] = set()
    while True:
        chosen = [next(int(k) for k in row if k not in gone) for row in order]
        sizes = {k: chosen.count(k) for k in set(chosen)}
        smallest = min(sizes.values())
        small = smallest / len(logits) < min_share
        if len(sizes) == 1 or not (small or (max_groups and len(sizes) > max_groups)):
            return chosen
        gone.add(max(k for k, size in sizes.items() if size == smallest))
        gone |= {*range(logits.shape[1])} - {*sizes}  # nobody begins a group anew


@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 999),
    neurons=st.integers(1, 40),
    size=st.integers(1, 6),
    percent=st.integers(0, 100),
    most=st.integers(0, 6),
)
def test_it_is_the_plain_loop(seed: int, neurons: int, size: int, percent: int, most: int) -> None:
    logits = np.random.default_rng(seed).normal(size=(neurons, size)).astype(np.float32)
    found = dissolve(layer_of(torch.from_numpy(logits)), percent / 100, most)
    assert found.tolist() == plain(logits, percent / 100, most)
    sizes = np.bincount(found, minlength=size)
    sizes = sizes[sizes > 0]
    assert len(sizes) == 1 or min(sizes) >= percent / 100 * neurons
    assert not most or len(sizes) <= most


def test_without_limits_the_largest_logits_choose() -> None:
    layer = layer_of(torch.randn(50, 6, generator=torch.Generator().manual_seed(0)))
    assert torch.equal(dissolve(layer), layer.choice)


def test_a_group_that_gains_enough_in_time_stays() -> None:
    # ReLU 3 of 8, Sigmoid 2, Tanh 2, Leaky ReLU 1: that one goes first, and its neuron makes Tanh large enough.
    logits = torch.full((8, 4), -1.0)
    for neuron, k in enumerate((0, 0, 0, 1, 1, 2, 2, 3)):
        logits[neuron, k] = 1.0
    logits[7, 2] = 0.5
    logits[3:5, 0] = 0.5
    assert dissolve(layer_of(logits), 3 / 8).tolist() == [0, 0, 0, 0, 0, 2, 2, 2]
    (found,) = dissolved(nn.Sequential(layer_of(logits)), 3 / 8)
    assert (found.path, found.changed) == ("0", 3)
    assert found.before == {"relu": 3, "sigmoid": 2, "tanh": 2, "leaky_relu": 1}
    assert found.after == {"relu": 5, "tanh": 3}


def test_nothing_given_up_is_no_entry() -> None:
    assert dissolved(nn.Sequential(layer_of([[1.0, 0.0], [1.0, 0.0]]), nn.ReLU()), 1.0) == []


@pytest.mark.parametrize(
    ("limits", "expected"),
    [({"min_share": 1.1}, "between 0 and 1"), ({"max_groups": -1}, "0"), ({"min_share": "1"}, "a number")],
)
def test_limits_out_of_range(limits: dict[str, object], expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        smx.commit(nn.Sequential(smx.Selective(4)), **limits)  # type: ignore[arg-type]


def test_numbers_of_numpy_are_limits() -> None:
    net = nn.Sequential(layer_of([[2.0, 1], [2, 1], [0, 1]]))
    for limits in ({"max_groups": np.int64(1)}, {"min_share": np.float32(0.5)}):
        assert smx.commit(net, **limits)[0].choice.tolist() == [0, 0, 0]  # type: ignore[index]


def test_commit_dissolves_and_leaves_its_argument() -> None:
    net = nn.Sequential(nn.Linear(4, 3), layer_of([[2.0, 1], [2, 1], [0, 1]]), nn.Linear(3, 2))
    committed = smx.commit(net, min_share=0.5)
    assert committed[1].choice.tolist() == [0, 0, 0]  # type: ignore[index]
    assert selectives(net)[0].choice.tolist() == [0, 0, 1]


def test_a_matched_neuron_takes_the_scale_of_its_new_choice() -> None:
    torch.manual_seed(0)
    net = smx.select(nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 2)), selection="matched")
    net(torch.randn(64, 4))
    limited = smx.commit(net, max_groups=1).eval()
    (layer,) = selectives(net)
    layer.choose(dissolve(layer, max_groups=1))
    x = torch.randn(8, 4)
    torch.testing.assert_close(limited(x), net.eval()(x))
    assert len({*limited[1].choice.tolist()}) == 1  # type: ignore[index]


@pytest.mark.parametrize("rewind", [False, True])
def test_a_run_dissolves_between_the_phases(tmp_path: Path, rewind: bool) -> None:
    result = train(replace(SMALL, max_groups=1, rewind=rewind), data.load("digits"), tmp_path)
    assert all(len({*choice.tolist()}) == 1 for choice in result.model.choices.values())
    found = result.model.metrics["phase1"]
    assert found["groups"] - found["groups_dissolved"] == len(result.model.choices)
    assert 0 < found["neurons_moved"] < sum(len(choice) for choice in result.model.choices.values())
