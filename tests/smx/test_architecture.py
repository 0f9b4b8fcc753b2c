from __future__ import annotations

import json
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import smx
from smx import factory
from smx.architecture import Architecture, architecture_for
from smx.errors import InputError

NETWORK = """
import torch.nn.functional as F
from torch import nn

class Net(nn.Module):
    def __init__(self, input_shape, num_classes):
        super().__init__()
        self.conv = nn.Conv2d(input_shape[0], 6, 3, padding=1)
        self.act = nn.Hardtanh()
        self.hidden = nn.Linear(6, 5)
        self.output = nn.Linear(5, num_classes)

    def forward(self, x):
        x = self.act(self.conv(x)).mean((2, 3))
        return self.output(F.silu(self.hidden(x)))

class Overwrites(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear, self.output = nn.Linear(4, 8, bias=False), nn.Linear(8, 3)
        self.block = nn.Sequential(nn.ReLU(inplace=True), nn.Linear(8, 8))

    def forward(self, x):
        x = self.linear(x)
        return self.output(self.block(x) + x)
"""


@pytest.fixture
def own(write_module: Callable[[str, str], None]) -> None:
    write_module("own", NETWORK)


def test_an_mlp_has_the_weights_it_always_had_for_a_seed() -> None:
    torch.manual_seed(3)
    built = architecture_for("mlp", (8, 8), 10, hidden=(24, 16)).selective(smx.PAPER_POOL).state_dict()
    torch.manual_seed(3)
    expected: dict[str, Tensor] = {}
    for i, (inputs, outputs) in enumerate([(64, 24), (24, 16)], 1):
        linear, choice = nn.Linear(inputs, outputs), smx.Selective(outputs)
        expected |= {f"layer{i}.linear.{key}": value for key, value in linear.state_dict().items()}
        expected[f"layer{i}.activation.logits"] = choice.logits.detach()
    expected |= {f"output.{key}": value for key, value in nn.Linear(16, 10).state_dict().items()}
    assert list(built) == list(expected)
    assert all(torch.equal(built[key], expected[key]) for key in expected)


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 4), st.integers(4, 11), st.integers(4, 11), st.integers(2, 5), st.data())
def test_a_cnn_is_what_its_formula_says(
    colours: int, height: int, width: int, classes: int, data: st.DataObject
) -> None:
    channels = tuple(data.draw(st.lists(st.integers(1, 6), min_size=1, max_size=3)))
    shape = (colours, height, width)
    network = Architecture(kind="cnn", input_shape=shape, num_classes=classes, widths=channels).mixed(["elu"])
    for name, values in network.state_dict().items():
        if name.endswith(("norm.bias", "norm.running_mean")):
            values.normal_()
    state = network.eval().double().state_dict()
    x = h = torch.randn(3, *shape, dtype=torch.float64)
    for i in range(1, len(channels) + 1):
        norm = {key: state[f"layer{i}.norm.{key}"] for key in ("running_mean", "running_var", "weight", "bias")}
        h = F.elu(F.batch_norm(F.conv2d(h, state[f"layer{i}.conv.weight"], padding=1), **norm))
        if i < len(channels):
            h = F.max_pool2d(h, 2)  # ELU only rises, so that it may come before
    expected = F.linear(h.flatten(1), state["output.weight"], state["output.bias"])
    torch.testing.assert_close(network(x), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("model", "sample", "text", "shape"),
    [
        ("mlp", (8, 8), "64-7-10", (64,)),
        ("cnn", (8, 9), "cnn 1x8x9-16-32-64-10", (1, 8, 9)),
        ("cnn", (5, 4, 3), "cnn 3x5x4-16-32-64-10", (3, 5, 4)),
        ("own:Net", (3, 5, 4), "own:Net 3x5x4-10", (3, 5, 4)),
        ("own:Net", (12,), "own:Net 12-10", (12,)),
    ],
)
def test_an_architecture_is_plain(model: str, sample: tuple[int, ...], text: str, shape: tuple[int, ...]) -> None:
    architecture = architecture_for(model, sample, 10, hidden=(7,))
    assert (str(architecture), architecture.input_shape) == (text, shape)
    assert Architecture.from_dict(json.loads(json.dumps(architecture.to_dict()))) == architecture


@pytest.mark.parametrize("sample", [(64,), (3, 8), (8, 8, 2, 2), (3, 2, 8)])
def test_a_cnn_wants_images(sample: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match=r"takes images of 4x4 or more: \(H, W\), .*; got \("):
        architecture_for("cnn", sample, 10, hidden=()).mixed(["relu"])


@pytest.mark.usefixtures("own")
def test_every_activation_of_a_users_network_is_replaced() -> None:
    network = architecture_for("own:Net", (8, 8), 4, hidden=()).mixed(["identity"])
    found = {name: part for name, part in network.named_modules() if isinstance(part, smx.Mixed)}
    assert {name: (part.num_features, part.dim) for name, part in found.items()} == {"act": (6, 1), "silu": (5, -1)}
    x = torch.randn(2, 1, 8, 8)
    state = network.state_dict()
    h = F.conv2d(x, state["conv.weight"], state["conv.bias"], padding=1).mean((2, 3))
    for layer in ("hidden", "output"):
        h = F.linear(h, state[f"{layer}.weight"], state[f"{layer}.bias"])
    torch.testing.assert_close(network(x), h)


@pytest.mark.usefixtures("own")
def test_a_users_network_is_tried_on_more_than_zeros() -> None:
    state = torch.get_rng_state()
    x = factory.example((4,))
    assert torch.equal(state, torch.get_rng_state())
    assert torch.equal(x, factory.example((4,)))
    with pytest.raises(InputError, match=r"own:Overwrites: .* computes something else on example_input"):
        Architecture(kind="factory", input_shape=(4,), num_classes=3, name="own:Overwrites").mixed(["relu"])


def test_a_kind_of_a_later_release_is_refused() -> None:
    with pytest.raises(ValueError, match="'gru' is no kind of network this smx knows; upgrade"):
        Architecture(kind="gru", input_shape=(4,), num_classes=2).build()
