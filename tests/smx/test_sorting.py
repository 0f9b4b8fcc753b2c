"""`smx.sort`: which layers can be sorted, and that the function stays what it was."""

from __future__ import annotations

import copy
import warnings
from contextlib import nullcontext as quiet
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import smx
from smx.sorting import refusals
from tests.export.test_random_networks import Residual, networks
from tests.smx.selected import Net, some
from tests.smx.sorting_cases import MOVES, STAYS, Case


def choices(net: nn.Module) -> dict[str, list[int]]:
    return {name: layer.choice.tolist() for name, layer in net.named_modules() if isinstance(layer, smx.Mixed)}


def is_sorted(choice: list[int]) -> bool:
    return choice == sorted(choice)


def outputs_and_gradient(net: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    x = x.clone().requires_grad_(x.is_floating_point())
    y = net(x)
    if x.is_floating_point():
        y.square().sum().backward()
    return y.detach(), x.grad if x.grad is not None else torch.zeros(())


def agree(a: Tensor, b: Tensor) -> None:
    torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12 * max(1.0, float(a.detach().abs().max())))


def sorted_alike(net: nn.Module, x: Tensor, example: Tensor | None) -> tuple[nn.Module, dict[str, str]]:
    """Sort a network, hold the result against it, and return it with the reasons of the layers that are left."""
    net = net.double()
    with torch.no_grad():
        for tensor in (*net.parameters(), *net.buffers()):
            if tensor.is_floating_point():
                tensor.uniform_(-1, 1) if isinstance(tensor, nn.Parameter) else tensor.uniform_(0.5, 1.5)
    before = copy.deepcopy(net.state_dict())
    reasons = refusals(net, example_input=example)
    nothing = 0 < len(reasons) == len([layer for layer in choices(net).values() if len(set(layer)) > 1])
    with (
        pytest.warns(UserWarning, match="nothing was sorted: .*; smx.sorting.refusals lists all")
        if nothing
        else quiet()
    ):
        result = smx.sort(net, example_input=example)
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())
    shapes, expected = ([(key, x.shape) for key, x in state.items()] for state in (result.state_dict(), before))
    assert shapes == expected
    for name, choice in choices(result).items():
        assert is_sorted(choice) != (name in reasons), (name, choice, reasons)
        assert sorted(choice) == sorted(choices(net)[name])
    assert all(reasons.values())
    assert refusals(result, example_input=example) == reasons
    with warnings.catch_warnings(action="ignore"):
        again = smx.sort(result, example_input=example)
    assert all(torch.equal(value, result.state_dict()[key]) for key, value in again.state_dict().items())
    for expected, got in zip(*(outputs_and_gradient(part.eval(), x) for part in (net, result)), strict=True):
        agree(expected, got)
    return result, reasons


def trains_alike(net: nn.Module, result: nn.Module, x: Tensor) -> None:
    """Hold two steps of training, of the sorted network and of the other one, against each other."""
    outputs = []
    for part in (net, result):
        part.train()
        for layer in part.modules():
            if isinstance(layer, nn.Dropout):
                layer.p = 0.0  # what it drops it draws by position
        optimizer = torch.optim.SGD(part.parameters(), lr=1e-3)
        for _ in range(2):
            optimizer.zero_grad()
            part(x).square().mean().backward()
            optimizer.step()
        outputs.append((part(x).detach(), part.eval()(x).detach()))
    for expected, got in zip(*outputs, strict=True):
        torch.testing.assert_close(expected, got, rtol=1e-9, atol=1e-9 * max(1.0, float(expected.abs().max())))


@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(drawn=networks(), given_example=st.booleans())
def test_random_networks_stay_what_they_are(drawn: tuple[nn.Module, tuple[int, ...]], given_example: bool) -> None:
    net, shape = drawn
    assume(choices(net))
    x = torch.randn(4, *shape, dtype=torch.float64)
    result, reasons = sorted_alike(net, x, x if given_example else None)
    if given_example:
        assert all("shares the order" in reason or "input of the module" in reason for reason in reasons.values())
    trains_alike(net, result, x)


@pytest.mark.parametrize("case", MOVES, ids=lambda case: case.name)
def test_permutations_move_through_what_keeps_channels_apart(case: Case) -> None:
    torch.manual_seed(0)
    net, x = case.network()
    x = x.double()
    result, reasons = sorted_alike(net, x, x)
    assert is_sorted(choices(result)["mixed"])
    assert "mixed" not in reasons
    if case.name not in ("noise", "positions of pooling"):  # one is drawn, the others jump where rounding decides
        for part in (net, result):
            for layer in part.modules():
                if isinstance(layer, nn.AlphaDropout | nn.Dropout2d):
                    layer.p = 0.0
        trains_alike(net, result, x)


@pytest.mark.parametrize("case", STAYS, ids=lambda case: case.name)
def test_what_looks_at_the_order_keeps_it(case: Case) -> None:
    torch.manual_seed(0)
    net, x = case.network()
    x = x.double()
    result, reasons = sorted_alike(net, x, x)
    assert len(reasons) == 1
    assert case.reason in next(iter(reasons.values()))
    if "several layers" not in case.reason and case.reason:
        assert choices(result) == choices(net)


def test_the_larger_layer_decides_where_an_order_is_shared() -> None:
    """The stem, of 36 values a channel, and the trunk after it, of 9, share the residual sum's order."""
    branch = Residual(nn.Conv2d(8, 8, 1), some(8, seed=1), nn.Conv2d(8, 8, 1))
    stem_and_trunk = (nn.Conv2d(3, 8, 3, padding=1), some(8), nn.MaxPool2d(2), branch, some(8, seed=2))
    x = torch.randn(2, 3, 6, 6, dtype=torch.float64)
    result, reasons = sorted_alike(nn.Sequential(*stem_and_trunk, nn.Flatten(), nn.Linear(8 * 9, 2)), x, x)
    assert reasons == {"4": "it shares the order of a larger layer"}
    stem, trunk = choices(result)["1"], choices(result)["4"]
    pairs = list(zip(stem, trunk, strict=True))
    assert pairs == sorted(pairs)  # sorted within the groups of the stem


def test_weights_and_layers_that_are_used_twice_agree() -> None:
    """An autoencoder whose decoder is the transposed encoder, used twice; its neurons are not tied to its inputs."""

    def forward(net: Any, x: Tensor) -> Any:
        x = F.linear(net.mixed(net.encoder(x)), net.encoder.weight.t())
        return net.decoder(net.mixed(net.again(x)))

    encoder, again, x = nn.Linear(5, 9), nn.Linear(5, 9, bias=False), torch.randn(4, 5, dtype=torch.float64)
    again.weight = encoder.weight
    net = Net(forward, encoder=encoder, again=again, mixed=some(9), decoder=nn.Linear(9, 5))
    result, reasons = sorted_alike(net, x, x)
    assert not reasons
    assert result.again.weight is result.encoder.weight  # type: ignore[union-attr]


def test_a_shared_weight_whose_uses_do_not_agree_is_pinned() -> None:
    """Hidden to hidden, with weights that the inputs go through as well: columns keep their order, so rows must too."""
    linear = nn.Linear(6, 6)
    net = nn.Sequential(linear, some(6), linear, some(6, seed=1), nn.Linear(6, 2))
    x = torch.randn(4, 6, dtype=torch.float64)
    result, reasons = sorted_alike(net, x, x)
    assert choices(result) == choices(net)
    assert set(reasons.values()) == {"it is an input of the module"}


def test_weights_in_one_memory_are_pinned() -> None:
    memory = torch.randn(7, 4, dtype=torch.float64)
    net = nn.Sequential(nn.Linear(4, 5), some(5), nn.Linear(5, 4), nn.Linear(4, 5), some(5), nn.Linear(5, 2)).double()
    for linear, weight in ((net[0], memory[:5]), (net[3], memory[2:])):
        assert isinstance(linear, nn.Linear)
        linear.weight = nn.Parameter(weight)
    assert set(refusals(net, example_input=torch.zeros(1, 4).double()).values()) == {
        "a weight shares its memory with another one"
    }


def test_what_only_training_does_counts() -> None:
    """A network that trains with another head than it answers with, and has a layer that is never called."""

    def forward(net: Any, x: Tensor) -> Any:
        h = net.stem(x)
        main = net.head(net.body(h))
        return {"main": main, "aux": net.aux(h.cumsum(1))} if net.training else main

    parts = {"stem": nn.Sequential(nn.Linear(3, 8), some(8)), "body": nn.Sequential(nn.Linear(8, 8), some(8, seed=1))}
    net = Net(forward, **parts, unused=some(4), head=nn.Linear(8, 2), aux=nn.Linear(8, 2))
    x = torch.randn(4, 3, dtype=torch.float64)
    result, reasons = sorted_alike(net, x, x)
    assert reasons == {"stem.1": "cumsum depends on the order", "unused": "the dry run does not reach it"}
    assert is_sorted(choices(result)["body.1"])


def test_an_output_whose_tensors_can_not_be_found_is_refused() -> None:
    net = Net(lambda net, x: iter([net.mixed(net.linear(x))]), linear=nn.Linear(3, 8), mixed=some(8))
    assert refusals(net, example_input=torch.zeros(1, 3)) == {
        "mixed": "the dry run ended in TypeError: it returns a list_iterator"
    }


def test_embeddings_and_several_inputs() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding, self.mixed, self.head = nn.Embedding(7, 9), some(9, -1), nn.Linear(9, 2)

        def forward(self, words: Tensor, weights: Tensor) -> Tensor:
            return self.head((self.mixed(self.embedding(words)) * weights.unsqueeze(-1)).mean(1))  # type: ignore[no-any-return]

    net, inputs = Net().double(), (torch.randint(7, (4, 5)), torch.randn(4, 5, dtype=torch.float64))
    result = smx.sort(net, example_input=inputs)
    assert refusals(net, example_input=inputs) == {}
    assert is_sorted(choices(result)["mixed"])
    agree(net(*inputs), result(*inputs))


@pytest.mark.parametrize("batch_first", [False, True])
def test_pytorchs_transformer_layers(batch_first: bool) -> None:
    layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, activation=nn.ReLU(), batch_first=batch_first)
    encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
    x = torch.randn(3, 5, 8)
    net = smx.select(encoder, example_input=x)
    for logits in (part.logits for part in net.modules() if isinstance(part, smx.Selective)):
        nn.init.normal_(logits)
    net = smx.commit(net)
    result, reasons = sorted_alike(net, x.double(), x.double())
    assert len(choices(net)) == 2
    assert not reasons
    trains_alike(net, result, x.double())


@pytest.mark.parametrize(
    "net",
    [
        nn.Sequential(nn.Flatten(), nn.BatchNorm1d(12), nn.Linear(12, 9), some(9), nn.Linear(9, 2)),
        nn.Sequential(nn.Conv1d(2, 6, 3), nn.BatchNorm1d(6), some(6), nn.Flatten(), nn.Linear(6 * 10, 2)),
        nn.Sequential(nn.Conv2d(3, 6, 5, 2), some(6), nn.Conv2d(6, 9, 1), some(9), nn.Flatten(), nn.Linear(9 * 25, 2)),
        nn.Sequential(nn.Conv3d(1, 6, 1), some(6), nn.AdaptiveAvgPool3d(1), nn.Flatten(1), nn.Linear(6, 2)),
    ],
    ids=["mlp", "conv1d", "conv2d", "conv3d"],
)
def test_no_example_is_needed_where_the_first_layer_tells(net: nn.Module) -> None:
    shape = {"Flatten": (4, 3, 4), "Conv1d": (4, 2, 12), "Conv2d": (4, 3, 13, 13), "Conv3d": (4, 1, 2, 3, 4)}
    x = torch.randn(shape[type(net[0]).__name__], dtype=torch.float64)  # type: ignore[index]
    _, reasons = sorted_alike(net, x, None)
    assert not reasons


def test_where_no_example_fits_one_must_be_given() -> None:
    net = nn.Sequential(nn.Conv2d(3, 6, 1), some(6), nn.Flatten(), nn.Linear(6 * 4 * 7, 2))
    assert refusals(net) == {"1": "no input is known that the module takes; give example_input"}
    with pytest.warns(UserWarning, match=r"nothing was sorted: 1: no input is known that the module takes; give"):
        assert choices(smx.sort(net)) == choices(net)
    assert refusals(net, example_input=torch.zeros(1, 3, 4, 7)) == {}


def test_wrong_modules_are_refused() -> None:
    with pytest.raises(ValueError, match=r"Linear has no Mixed layer to sort; smx\.commit makes them"):
        smx.sort(nn.Linear(3, 3))
    with pytest.raises(ValueError, match=r"1 is a Selective layer; fix the choices first, with smx\.commit"):
        smx.sort(nn.Sequential(some(4), smx.Selective(4)))


class Shifted(nn.Module):
    """Its neurons have a constant of their own, which may be in the state dict or not."""

    offset: Tensor

    def __init__(self, persistent: bool) -> None:
        super().__init__()
        self.a, self.mixed, self.b = nn.Linear(4, 6), some(6), nn.Linear(6, 2)
        self.register_buffer("offset", torch.linspace(-1, 1, 6), persistent=persistent)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.mixed(self.a(x) + self.offset))  # type: ignore[no-any-return]


@pytest.mark.parametrize("persistent", [True, False])
def test_a_sorted_networks_state_dict_is_all_that_another_one_needs(persistent: bool) -> None:
    net, other, x = Shifted(persistent), Shifted(persistent), torch.randn(5, 4)
    if persistent:
        result = smx.sort(net)
    else:
        with pytest.warns(UserWarning, match="nothing was sorted: mixed: a buffer that no state_dict holds"):
            result = smx.sort(net)
    other.load_state_dict(result.state_dict())
    torch.testing.assert_close(other(x), net(x))
    assert is_sorted(result.mixed.choice.tolist()) == persistent  # type: ignore[union-attr,operator]


class Twice(nn.Module):
    """A class of neurons that stands twice on an axis, tied to two others there: by a gate, or by an addition."""

    def __init__(self, gate: bool) -> None:
        super().__init__()
        self.a, self.b, self.h = nn.Linear(4, 6), nn.Linear(4, 6), nn.Linear(4, 6)
        self.p, self.q = some(6), some(6)
        self.head, self.gate = nn.Linear(6 if gate else 12, 2), gate

    def forward(self, x: Tensor) -> Tensor:
        both, h = torch.cat([self.p(self.a(x)), self.q(self.b(x))], 1), self.h(x)
        return self.head(F.glu(both) if self.gate else both + torch.cat([h, h], 1))  # type: ignore[no-any-return]


@pytest.mark.parametrize("gate", [True, False])
def test_a_class_may_stand_twice_on_an_axis(gate: bool) -> None:
    x = torch.randn(5, 4, dtype=torch.float64)
    sorted_alike(Twice(gate), x, x)
