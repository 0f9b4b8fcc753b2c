from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import smx
from smx.hooks import kinks, layer_values
from smx.models import mlp
from smx.paper import PAPER_POOL
from tests import reference

Array = reference.Array


@pytest.fixture
def random() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def choice(n: int) -> Tensor:
    return torch.arange(n) % len(PAPER_POOL)


def perceptron() -> nn.Sequential:
    torch.manual_seed(0)
    return mlp((6, 20, 9, 3), lambda i: smx.Mixed(choice(20 if i == 1 else 9))).eval()


def convolution() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(2, 8, 3), smx.Mixed(choice(8)), nn.Flatten(), nn.Linear(32, 3)).eval()


def perceptron_z(net: nn.Sequential, x: Tensor) -> list[Array]:
    """Compute the z of both layers in float64."""
    found, h = [], x.double().numpy()
    for name in ("layer1.linear", "layer2.linear"):
        weight, bias = (p.detach().double().numpy() for p in net.get_submodule(name).parameters())
        found.append(h @ weight.T + bias)
        h = reference.mixed(found[-1], choice(len(bias)).numpy(), PAPER_POOL)
    return found


def convolution_z(net: nn.Sequential, x: Tensor) -> list[Array]:
    """Compute the first z of each channel in float64."""
    weight, bias = (p.detach().double().numpy() for p in net[0].parameters())
    return [np.einsum("bijk,cijk->bc", x.double().numpy()[:, :, :3, :3], weight) + bias]


@pytest.mark.parametrize(
    ("net", "z_of", "shape"),
    [(perceptron(), perceptron_z, (50, 6)), (convolution(), convolution_z, (50, 2, 4, 4))],
    ids=["perceptron", "convolution"],
)
def test_every_neuron_that_changes_sign_stands_at_its_kink(
    net: nn.Sequential, z_of: object, shape: tuple[int, ...], random: torch.Generator
) -> None:
    assert callable(z_of)
    x = torch.randn(shape, generator=random)
    found = kinks(net, x)
    assert (found.dtype, found.shape[1:]) == (torch.float32, shape[1:])
    before, after = (np.concatenate(z_of(net, inputs), 1) for inputs in (x, found))
    crossing = (before < 0).any(0) & (before >= 0).any(0)
    assert crossing.sum() == len(found) > 4
    nearest = np.abs(after).min(0) / np.abs(before).mean(0)
    assert nearest[crossing].max() < 5e-7


def test_neurons_are_few_and_spread_and_the_choice_is_seeded(random: torch.Generator) -> None:
    net, x = perceptron(), torch.randn(50, 6, generator=random)
    few = kinks(net, x, neurons=3)
    assert len(few) <= 6
    assert torch.equal(few, kinks(net, x, neurons=3))
    assert not torch.equal(few, kinks(net, x, neurons=3, seed=1))
    at = np.abs(perceptron_z(net, few[:3])[0])
    assert at.argmin(1).tolist() == [0, 6, 13]


def test_neurons_on_another_axis_and_layers_called_twice(random: torch.Generator) -> None:
    """A layer (B, T, N): the first of the T values becomes zero, at each of both calls."""
    torch.manual_seed(0)
    mixed = smx.Mixed(choice(4), dim=-1)
    net = nn.Sequential(mixed, nn.Linear(4, 4, bias=False), mixed).eval()
    x = torch.randn(40, 3, 4, generator=random)
    found = kinks(net, x)
    (first, second), _ = layer_values(net, found)
    assert (first.layer, second.layer) == ("0", "0")
    for before, after in zip(layer_values(net, x)[0], (first, second), strict=True):
        crossing = (before.z[:, 0] < 0).any(0) & (before.z[:, 0] >= 0).any(0)
        assert crossing.sum() >= 2
        assert after.z[:, 0].abs().min(0).values[crossing].max() < 1e-6


def test_where_there_is_no_kink_there_is_no_input(random: torch.Generator) -> None:
    x = torch.randn(5, 6, generator=random)
    assert kinks(nn.Linear(6, 2), x).shape == (0, 6)
    assert kinks(perceptron(), x[:1]).shape == (0, 6)
    with pytest.raises(ValueError, match=r"between floating inputs, got torch\.int64"):
        kinks(perceptron(), x.long())


def test_layer_values_are_what_the_layers_saw(random: torch.Generator) -> None:
    net, x = perceptron(), torch.randn(5, 6, generator=random)
    seen, (output,) = layer_values(net, x)
    assert [values.layer for values in seen] == ["layer1.activation", "layer2.activation"]
    for values, z in zip(seen, perceptron_z(net, x), strict=True):
        np.testing.assert_allclose(values.z, z, atol=1e-5)
        np.testing.assert_allclose(values.h, reference.mixed(z, choice(z.shape[1]).numpy(), PAPER_POOL), atol=1e-5)
    torch.testing.assert_close(output, net(x))
    assert not net.get_submodule("layer1.activation")._forward_hooks
