"""`start="current"`: a network begins as it was given, to the bit, explores as it says, and its logits learn apart."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import smx
from smx.activations import Activation
from smx.data import Dataset
from smx.errors import InputError
from smx.layers import LEAD, selectives
from smx.models import cnn, mlp
from smx.paper import SELECTIONS
from smx.study.methods import method_of, settings_of
from smx.training.config import TrainConfig, from_values
from smx.training.run import train
from smx.training.step import Step


class Residual(nn.Module):
    """A user's network: functions, several activations, one in place, one perhaps a formula."""

    def __init__(self, formula: bool = False) -> None:
        super().__init__()
        self.formula = formula
        self.first, self.norm, self.second = nn.Conv2d(1, 6, 3, padding=1), nn.BatchNorm2d(6), nn.Conv2d(6, 6, 1)
        self.hidden, self.out = nn.Linear(6, 9), nn.Linear(9, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu_(self.norm(self.first(x)))
        x = torch.tanh(self.second(x)) + x
        z = self.hidden(x.mean((2, 3)))
        h: Tensor = self.out(z * torch.sigmoid(z) if self.formula else F.silu(z))
        return h


CASES: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "mlp": (lambda: mlp((8, 12, 7, 3), lambda i: [nn.ELU, nn.SELU][i % 2]()), (8,)),
    "cnn": (lambda: cnn((1, 8, 8), 3, (4, 5)), (1, 8, 8)),
    "a user's": (Residual, (1, 6, 6)),
}
POOL = ("leaky_relu", "relu", "tanh", "elu", "selu", "silu")


@pytest.mark.parametrize("selection", [None, *SELECTIONS])
@pytest.mark.parametrize("case", CASES)
def test_a_network_begins_as_it_was_given_to_the_bit(case: str, selection: str | None) -> None:
    make, shape = CASES[case]
    torch.manual_seed(0)
    net, x = make(), torch.randn(16, *shape) * 3
    for _ in range(3):
        net(x)  # BatchNorm has seen something
    start = smx.select(net, POOL, example_input=x[:4], start="current", selection=selection)
    expected = net.eval()(x)
    assert torch.equal(start.eval()(x), expected)
    start.train()(x)  # candidates have been matched
    state = start.state_dict()
    start.load_state_dict({**state, **{name: value for name, value in net.state_dict().items() if name in state}})
    assert torch.equal(start.eval()(x), expected)
    torch.testing.assert_close(smx.commit(start)(x), expected)
    for layer in selectives(start):
        assert layer.selection == (selection or "matched")
        assert layer.present is not None
        assert torch.equal(layer.choice, layer.present)
        if layer.matching is not None:
            affine = layer.matching.gather(1, layer.choice.expand(2, 1, -1))[:, 0]
            assert torch.equal(affine, torch.tensor([[1.0], [0.0]]).expand_as(affine))


def test_a_formula_is_the_function_that_it_stands_for() -> None:
    net, x = Residual(formula=True).eval(), torch.randn(5, 1, 6, 6)
    start = smx.select(net, POOL, example_input=x, start="current")
    assert [layer.pool[int(layer.choice[0])].name for layer in selectives(start)] == ["relu", "tanh", "silu"]
    torch.testing.assert_close(start(x), net(x))


def test_neurons_that_have_moved_are_matched_to_the_present_activation() -> None:
    torch.manual_seed(0)
    layer, z = smx.Selective(5, ("tanh", "relu", "elu"), selection="matched"), torch.randn(32, 5) + 1
    layer.begin(torch.zeros(5, dtype=torch.int64))
    layer(z)
    layer.choose(torch.tensor([0, 1, 2, 1, 2]))
    h, expected = layer.eval()(z), torch.tanh(z)
    torch.testing.assert_close(h.mean(0), expected.mean(0), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(h.std(0), expected.std(0), rtol=1e-4, atol=1e-5)
    assert torch.equal(h[:, 0], expected[:, 0])
    assert (h[:, 1:] - expected[:, 1:]).abs().amax(0).min() > 0.01


NUMBERED = tuple(Activation(f"number{k}", lambda z, k=k: z * 0 + k) for k in range(4))  # type: ignore[misc]


@pytest.mark.parametrize(("keep", "temperature"), [(0.9, 0.3), (0.9, 5.0), (0.5, 0.3), (0.99, 0.3)])
def test_the_present_activation_is_sampled_with_the_probability_that_is_said(keep: float, temperature: float) -> None:
    """Counted among 200,000 neurons, at any temperature; the other activations are equally frequent."""
    n = 200_000
    torch.manual_seed(0)
    layer = smx.Selective(n, NUMBERED, temperature)
    layer.begin(torch.full((n,), 2), keep)
    counts = torch.bincount(layer(torch.zeros(1, n))[0].long(), minlength=4) / n
    for k, p in enumerate([(1 - keep) / 3] * 2 + [keep] + [(1 - keep) / 3]):
        assert counts[k].item() == pytest.approx(p, abs=4.5 * math.sqrt(p * (1 - p) / n))


@pytest.mark.parametrize("selection", SELECTIONS)
def test_every_logit_gets_a_gradient_though_few_neurons_explore(selection: str) -> None:
    torch.manual_seed(0)
    layer = smx.Selective(40, selection=selection)
    layer.begin(torch.zeros(40, dtype=torch.int64), 0.97)
    (layer(torch.randn(64, 40)) * torch.randn(64, 40)).sum().backward()
    assert layer.logits.grad is not None
    assert (layer.logits.grad != 0).float().mean() > 0.95
    assert layer.logits.grad.abs().amax(1).min() > 0


@pytest.mark.parametrize(("start", "expected"), [("tanh", torch.tanh), ("LeakyReLU", F.leaky_relu)])
def test_all_neurons_may_begin_with_one_activation(start: str, expected: Callable[[Tensor], Tensor]) -> None:
    torch.manual_seed(0)
    net, x = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 6), nn.ELU(), nn.Linear(6, 2)), torch.randn(9, 4)
    chosen = smx.select(net, example_input=x, start=start, keep=0.8)
    torch.testing.assert_close(chosen.eval()(x), net[4](expected(net[2](expected(net[0](x))))))
    assert {layer.selection for layer in selectives(chosen)} == {"matched"}
    assert {layer.selection for layer in selectives(smx.select(net, start=start, selection="paper"))} == {"paper"}
    by_hand = smx.Selective(5, ("tanh", "elu"), selection="matched", per="layer")
    by_hand.begin(torch.tensor([1]), 0.8)
    layer = selectives(
        smx.select(
            nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 1)),
            ("tanh", "elu"),
            start="elu",
            keep=0.8,
            per="layer",
        )
    )[0]
    assert layer.explores == by_hand.explores
    assert torch.equal(layer.logits, by_hand.logits)


def test_the_recommended_rule_is_one_word() -> None:
    """One choice a layer among matched candidates, from ReLU; what is given besides wins."""
    net = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 2))

    def described(**how: Any) -> list[tuple[str, int, str]]:
        layers = list(selectives(smx.select(net, **how)))
        assert layers
        return [(layer.selection, len(layer.decisions), layer.pool[int(layer.choice[0])].name) for layer in layers]

    assert described(selection="recommended") == [("matched", 1, "relu")]
    assert described(selection="recommended") == described(selection="matched", start="relu", per="layer")
    assert described(selection="recommended", per=2, start="elu") == [("matched", 3, "elu")]
    with pytest.raises(ValueError, match="relu"):
        smx.select(net, ("tanh", "elu"), selection="recommended")
    with pytest.raises(InputError, match="must be paper or matched here"):
        TrainConfig(selection="recommended")
    word = from_values({"selection": "recommended"})
    assert from_values({"selection": "recommended", "per": 2, "start": "random"}) == replace(
        word, per=2, start="random", hold=False
    )
    for method in ("recommended", "recommended_random", "matched"):
        assert method_of(from_values(settings_of(method, {}))) == method


@pytest.mark.parametrize("selection", SELECTIONS)
def test_layers_that_hold_compute_their_activation_and_do_not_choose(selection: str) -> None:
    """In training, too: the values and gradients of ReLU, to the bit, and no gradient for the logits."""
    layer = smx.Selective(6, selection=selection, per="layer")
    layer.begin(torch.zeros(1, dtype=torch.int64))
    z, weight = (torch.randn(64, 6) for _ in range(2))
    layer(z)  # moments
    layer.holds = True
    values = []
    for function in (layer, torch.relu):
        x = z.clone().requires_grad_()
        h = function(x)
        values.append((h.detach(), *torch.autograd.grad((h * weight).sum(), x)))
    (h, gradient), (expected, expected_gradient) = values
    assert torch.equal(h, expected)
    assert torch.equal(gradient, expected_gradient)
    assert not any(
        isinstance(each, Tensor) for each in torch.autograd.grad(layer(x).sum(), layer.logits, allow_unused=True)
    )
    layer.holds = False
    assert any(not torch.equal(layer(z), expected) for _ in range(200)), "it explores again"


def test_a_run_holds_until_its_loss_has_fallen(
    digits: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the first epoch, with a price, too; a loss that never falls holds the whole epoch, and no longer."""
    logits: dict[float, list[bool]] = {}

    class Watched(Step):
        def __call__(self, *given: Any) -> None:
            before = [layer.logits.detach().clone() for layer in selectives(self.model)]
            super().__call__(*given)
            after = [layer.logits for layer in selectives(self.model)]
            moved.append(any(not torch.equal(a, b) for a, b in zip(before, after, strict=True)))

    monkeypatch.setattr("smx.training.phase.Step", Watched)
    how = {"selection": "recommended", "hidden": "8,6", "phase1_epochs": 2, "phase2_epochs": 1, "batch_size": 32}
    for fallen in (2.0, 0.9, 0.0):
        moved: list[bool] = []
        monkeypatch.setattr("smx.training.step.FALLEN", fallen)
        train(from_values({**how, "lr": 1e-2, "device": "cpu"}), digits, tmp_path / f"{fallen}")
        logits[fallen] = moved
    steps = len(logits[0.0]) // 3
    first = {fallen: moved.index(True) for fallen, moved in logits.items()}
    assert first[2.0] == 2, "the first step says what the loss was, the second that it has not doubled"
    assert 2 < first[0.9] < steps
    assert first[0.0] == steps
    assert all(all(moved[first[fallen] : 2 * steps]) for fallen, moved in logits.items())
    with pytest.raises(InputError, match="hold must be off with start = random"):
        from_values({"hold": True})


def test_what_a_network_can_not_start_from() -> None:
    net, x = nn.Sequential(nn.Linear(4, 6), nn.LeakyReLU(0.2), nn.Linear(6, 2)), torch.randn(4, 4)
    with pytest.raises(
        InputError, match=r"the present activation of '1', LeakyReLU\(negative_slope=0.2\), in the pool"
    ):
        smx.select(net, example_input=x, start="current")
    own = smx.Activation("steep", lambda z: F.leaky_relu(z, 0.2))
    start = smx.select(net, ("relu", own), example_input=x, start="current")
    assert torch.equal(start.eval()(x), net(x))
    with pytest.raises(ValueError, match=r"start must be one of random, current, relu, .*, selu, got 'now'"):
        smx.select(net, example_input=x, start="now")
    net[1] = nn.ReLU()
    least = math.exp(LEAD) / (math.exp(LEAD) + 5)
    for keep in (least - 1e-3, 1.0):
        with pytest.raises(ValueError, match=f"keep must be from {least:.3f}, for a pool of 6, to less than 1, got"):
            smx.select(net, example_input=x, start="current", keep=keep)
    alone = smx.select(net, ("relu",), example_input=x, start="current")
    assert torch.equal(alone.train()(x), net(x))
    for present in ([0, 1], [0, 1, 6], [0, -1, 2]):
        with pytest.raises(
            ValueError, match=rf"present must be \(3,\) indices from 0 to 5, got {re.escape(str(present))}"
        ):
            smx.Selective(3).begin(torch.tensor(present))
    layer = smx.Selective(3)
    state = {**layer.state_dict(), "present": torch.tensor([0, 1, 6]), "explores": torch.tensor(0.1)}
    with pytest.raises(ValueError, match="present must be"):
        layer.load_state_dict(state)


def test_a_start_survives_a_state_dict_and_a_file(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net, x = mlp((8, 12, 3), lambda i: nn.ELU()), torch.randn(9, 8)
    start = smx.select(net, example_input=x, start="current", per=5)
    start(x)
    other = smx.select(net, example_input=x, selection="matched", per=5)
    other.load_state_dict(start.state_dict())
    for a, b in zip(selectives(start), selectives(other), strict=True):
        assert torch.equal(a.present, b.present)  # type: ignore[arg-type]
        assert a.explores == b.explores
        a.reset_parameters()
        assert torch.equal(a.logits, b.logits)
    smx.save(start, tmp_path / "m.pt", example_input=x)
    assert torch.equal(smx.load(tmp_path / "m.pt")(x), start.eval()(x))


@pytest.mark.parametrize("selection", SELECTIONS)
def test_groups_of_parameters_have_each_once(selection: str) -> None:
    net = smx.select(mlp((8, 12, 7, 3)), example_input=torch.randn(4, 8), selection=selection)
    logits = {id(p) for layer in selectives(net) for p in layer.parameters()}
    for groups in (smx.parameter_groups(net, lr=0.1, logits_lr=0.3), smx.parameter_groups(net, lr=0.1)):
        parameters = [id(p) for group in groups for p in group["params"]]
        assert sorted(parameters) == sorted(id(p) for p in net.parameters())
    given, usual = smx.parameter_groups(net, lr=0.1, logits_lr=0.3), smx.parameter_groups(net, lr=0.1)
    assert [group["lr"] for group in given] == [0.1, 0.3]
    assert {id(p) for p in given[1]["params"]} == logits
    assert [group["lr"] for group in usual] == ([0.1] if selection == "paper" else [0.1, 1.0])
    optimizer = torch.optim.SGD(given)
    before = [p.detach().clone() for p in net.parameters()]
    net(torch.randn(4, 8)).square().sum().backward()
    optimizer.step()
    for p, old in zip(net.parameters(), before, strict=True):
        assert p.grad is not None
        torch.testing.assert_close(p, old - (0.3 if id(p) in logits else 0.1) * p.grad)
    assert smx.parameter_groups(nn.Linear(2, 2), lr=1.0)[0]["lr"] == 1.0
