"""Controls: other choices for phase 2, and what they leave of the learned ones."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from smx import Selective, data
from smx.modelfile import load_model
from smx.training.config import PHASE2_CHOICES
from smx.training.controls import CONTROLS, LEARNED, replace_choices
from smx.training.run import train
from tests.smx.runs import SMALL


def replaced(control: str, choice: torch.Tensor, seed: int = 0) -> torch.Tensor:
    layer = Selective(len(choice))
    layer.choose(choice)
    replace_choices(torch.nn.Sequential(layer), control, seed)
    return layer.choice


def test_every_control_is_a_setting() -> None:
    assert {LEARNED, *CONTROLS} == {*PHASE2_CHOICES}


def test_shuffled_choices_are_the_same_in_another_order() -> None:
    choice = torch.arange(600) % 6
    shuffled = replaced("shuffled", choice)
    assert not torch.equal(shuffled, choice)
    assert torch.equal(shuffled.sort().values, choice.sort().values)
    assert torch.equal(shuffled, replaced("shuffled", choice))
    assert not torch.equal(shuffled, replaced("shuffled", choice, seed=1))


def test_random_choices_are_uniform() -> None:
    drawn = replaced("random", torch.zeros(6000, dtype=torch.int64))
    counts = torch.bincount(drawn, minlength=6)
    assert counts.min() > 900  # of 1000 each, 100 are 3.5 standard deviations


def test_the_majority_is_the_layers_most_chosen() -> None:
    assert replaced("majority", torch.tensor([3, 1, 3, 2])).tolist() == [3, 3, 3, 3]
    assert replaced("learned", torch.tensor([3, 1, 3, 2])).tolist() == [3, 1, 3, 2]


@pytest.mark.parametrize("protocol", ["standard", "author"])
def test_phase_1_is_the_same_and_phase_2_has_the_controls_choices(protocol: str, tmp_path: Path) -> None:
    digits = data.load("digits")
    config = replace(SMALL, phase1_epochs=2, phase2_epochs=1, protocol=protocol)
    learned = train(config, digits, tmp_path / "learned")
    for control in CONTROLS:
        other = train(replace(config, phase2_choices=control), digits, tmp_path / control)
        assert [row.train_loss for row in other.rows[:2]] == [row.train_loss for row in learned.rows[:2]]
        kept = load_model(tmp_path / control / "model.pt").choices
        for layer, choice in learned.model.choices.items():
            before, after = torch.bincount(choice, minlength=6), torch.bincount(kept[layer], minlength=6)
            if control == "shuffled":
                assert torch.equal(before, after)
            elif control == "majority":
                assert after[before.argmax()] == len(choice)
            else:
                assert not torch.equal(before, after)
