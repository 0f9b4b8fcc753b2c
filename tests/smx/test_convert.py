from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import smx
from smx.activations import resolve_pool
from tests.smx.selected import Net, selectives


def gate(net: Any, x: Tensor) -> Any:
    """Scale images by what Linear layers put out: squeeze and excitation."""
    x = net.conv(x)
    return net.act(x * net.squeeze(x.mean((2, 3)))[:, :, None, None])


RELU = nn.ReLU()
GATED = Net(gate, conv=nn.Conv2d(1, 8, 3, padding=1), squeeze=nn.Linear(8, 8), act=nn.ReLU())


@pytest.mark.parametrize(
    ("net", "shape", "channels"),
    [
        (
            nn.Sequential(nn.Conv1d(2, 5, 3), nn.BatchNorm1d(5), nn.SiLU(), nn.Flatten(), nn.Linear(30, 7), nn.Tanh()),
            (4, 2, 8),
            {"2": (5, 1), "5": (7, -1)},
        ),
        (nn.Sequential(nn.LayerNorm(6), nn.Linear(6, 24), nn.GELU(), nn.Linear(24, 6)), (2, 5, 6), {"2": (24, -1)}),
        (nn.Sequential(nn.Flatten(0, 1), nn.Linear(3, 4), nn.Unflatten(0, (2, 5)), RELU), (2, 5, 3), {"3": (4, -1)}),
        (GATED, (2, 1, 6, 7), {"act": (8, 1)}),
        (GATED, (2, 1, 6, 8), {"act": (8, 1)}),  # as wide as it has channels
        (nn.Sequential(nn.Linear(3, 4), RELU, nn.Linear(4, 5), RELU), (1, 3), {"1": (4, -1), "3": (5, -1)}),
    ],
    ids=["definition", "transformer", "reshaped", "gated", "gated, wide", "at two places"],
)
def test_channels(net: nn.Module, shape: tuple[int, ...], channels: dict[str, tuple[int, int]]) -> None:
    before, x = repr(net), torch.randn(shape)
    for example in (x, None) if len(shape) < 3 or isinstance(next(net.children()), nn.Conv1d | nn.LayerNorm) else (x,):
        chosen = smx.select(net, pool=("relu", "mish"), temperature=0.9, example_input=example, include="*")
        layers = {path: part for path, part in chosen.named_modules() if isinstance(part, smx.Selective)}
        assert {path: (layer.num_features, layer.dim) for path, layer in layers.items()} == channels
        assert {(layer.pool, layer.temperature) for layer in layers.values()} == {(resolve_pool(("relu", "mish")), 0.9)}
        assert chosen(x).shape == net(x).shape
    assert repr(net) == before


def test_select_infers_channels_by_a_dry_run() -> None:
    """Parts defined in another order than they run, an activation that is used twice, and one that is not called."""

    def forward(net: Any, x: Tensor) -> Any:
        x = net.act(net.norm(net.first(x)))
        return net.head(net.act(net.second(x) + x))

    activations = {"act": nn.ReLU(inplace=True), "never": nn.Tanh()}
    first, second = (nn.Conv2d(channels, 8, 3, padding=1) for channels in (3, 8))
    head = nn.Sequential(nn.Flatten(), nn.Linear(8 * 16, 12), nn.GELU(), nn.Dropout(0.5), nn.Linear(12, 2))
    net = Net(forward, **activations, second=second, first=first, norm=nn.BatchNorm2d(8), head=head)
    chosen = smx.select(net, example_input=torch.randn(1, 3, 4, 4))
    assert selectives(chosen) == {"act": 8, "head.2": 12, "act_1": 8}
    assert smx.plan(net, example_input=torch.randn(1, 3, 4, 4)).left == {"never": "it is not called in eval()"}
    assert isinstance(chosen.never, nn.Tanh)
    assert chosen.training
    assert chosen(torch.randn(2, 3, 4, 4)).shape == (2, 2)


def test_channels_that_cannot_be_told() -> None:
    first = nn.Sequential(nn.ReLU(), nn.Linear(3, 4))
    with pytest.raises(ValueError, match=r"0 is left: the axis of its neurons is open in \(2, 3\), and no layer with"):
        smx.select(first)
    assert selectives(smx.select(first, example_input=torch.randn(2, 3))) == {"0": 3}
    flat = nn.Sequential(nn.Linear(3, 1), nn.Flatten(0), nn.Sigmoid())
    with pytest.raises(ValueError, match=r"2 is left: the axis of its neurons is open in \(4,\)"):
        smx.select(flat, example_input=torch.zeros(4, 3), include="2")


def test_a_kept_activation_may_be_shared() -> None:
    gate = nn.Sigmoid()
    net = nn.Sequential(nn.Linear(3, 4), gate, nn.Linear(4, 5), gate, nn.ReLU())
    selected = smx.select(net, types=(nn.ReLU,), example_input=torch.zeros(1, 3), include="*")
    assert list(selectives(selected)) == ["4"]
    assert selected[1] is selected[3]  # type: ignore[index]


def test_one_activation_for_two_widths_is_refused_where_it_cannot_be_two() -> None:
    def forward(net: Any, x: Tensor) -> Tensor:
        for linear in net.linears:
            x = net.act(linear(x)) if x.sum() < 9 else x
        return x

    net = Net(forward, linears=nn.ModuleList([nn.Linear(3, 4), nn.Linear(4, 5)]), act=nn.ReLU())
    with pytest.raises(ValueError, match="act is left: it is used for inputs of 4 and of 5 neurons"):
        smx.select(net, example_input=torch.zeros(1, 3), include="act")


def test_nothing_to_replace() -> None:
    with pytest.raises(ValueError, match="Linear has no activation to select"):
        smx.select(nn.Linear(3, 3))
    with pytest.raises(ValueError, match="no Selective layer to commit"):
        smx.commit(nn.Linear(3, 3))


@pytest.mark.parametrize(
    ("argument", "value", "said"),
    [
        ("per", 1.5, "per must be neuron, layer or how many neurons choose together, got 1.5"),
        ("dim", 99, r"dim gives the axis for the path of an activation, like \{'1': -1\}, got 99"),
        ("pool", [None], "names of activations or smx.activations.Activation, got None"),
        ("pool", [torch.relu], "names of activations or smx.activations.Activation, got <built-in"),
        ("keep", float("nan"), "keep must be between 0 and 1, got nan"),
    ],
)
def test_what_no_argument_can_be(argument: str, value: Any, said: str) -> None:
    net = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))
    with pytest.raises(ValueError, match=said):
        smx.select(net, **{argument: value})


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: smx.Selective(2.5), "num_features must be a whole number from 1 to"),  # type: ignore[arg-type]
        (lambda: smx.Selective(10**30), "num_features must be a whole number from 1 to"),
        (lambda: smx.Selective(3, temperature=float("inf")), "temperature must be positive and finite, got inf"),
        (lambda: smx.Selective(3, dim=2.5), "dim must be the number of an axis"),  # type: ignore[arg-type]
        (lambda: smx.Selective(3, dtype=torch.int64), "the logits have a floating dtype"),
        (lambda: smx.Mixed([0.5]), "choice must be whole numbers"),  # type: ignore[list-item]
        (lambda: smx.Mixed([float("nan")]), "cannot convert float NaN"),  # type: ignore[list-item]
    ],
)
def test_what_no_layer_can_be(make: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        make()


def test_an_example_that_does_not_fit_is_named() -> None:
    net = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))
    with pytest.raises(ValueError, match=r"Sequential can't run on example_input \(RuntimeError: mat1 and mat2"):
        smx.select(net, example_input=torch.rand(3, 9))


def test_groups_are_counted_in_whole_numbers() -> None:
    net = smx.select(nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2)))
    with pytest.raises(ValueError, match=r"max_groups must be a whole number, 0 \(no limit\) or more, got 1.5"):
        smx.commit(net, max_groups=1.5)  # type: ignore[arg-type]


def test_commit_takes_the_largest_logit_and_keeps_the_rest() -> None:
    torch.manual_seed(0)
    net = smx.select(nn.Sequential(nn.Linear(5, 9), nn.ReLU(), nn.BatchNorm1d(9), nn.Linear(9, 3)))
    selective = net[1]  # type: ignore[index]
    assert isinstance(selective, smx.Selective)
    with torch.no_grad():
        selective.logits.normal_()
    net(torch.randn(20, 5))  # moves the running statistics
    committed = smx.commit(net)
    mixed = committed[1]  # type: ignore[index]
    assert isinstance(mixed, smx.Mixed)
    assert mixed.choice.tolist() == selective.logits.detach().numpy().argmax(1).tolist()
    kept = {key: value for key, value in net.state_dict().items() if not key.startswith("1.")}
    for key, value in committed.state_dict().items():
        assert key == "1.choice" or torch.equal(value, kept[key])
    x = torch.randn(6, 5)
    assert torch.equal(committed.eval()(x), net.eval()(x))
    with torch.no_grad():
        kept["0.weight"].zero_()
    assert not torch.equal(committed.eval()(x), net.eval()(x))  # a copy, not a view


def test_a_shared_layer_stays_shared() -> None:
    act = smx.Selective(4)
    net = smx.commit(nn.Sequential(nn.Linear(4, 4), act, nn.Linear(4, 4), act))
    assert net[1] is net[3]  # type: ignore[index]


def test_dropout_in_place_after_an_activation_trains_in_both_phases() -> None:
    net = nn.Sequential(nn.Linear(6, 8), nn.GELU(), nn.Dropout(0.5, inplace=True), nn.Linear(8, 2))
    x = torch.randn(4, 6)
    phase1 = smx.select(net, example_input=x)
    for phase in (phase1, smx.sort(smx.commit(phase1), example_input=x)):
        phase.train()(x).sum().backward()
        assert all(weight.grad is not None for weight in phase.parameters())
