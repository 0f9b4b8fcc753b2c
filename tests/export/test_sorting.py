"""The order of neurons in the layout `sorted`: planned on the module, applied to the captured graph."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
import torch
from torch import Tensor, nn

import smx
from smx.export import export_onnx
from smx.export.capture import attach, batched, capture, expressions_of, simplify
from smx.export.compiler import PassReport, compile
from smx.export.sort import sort_neurons
from smx.runtime import Session
from tests import reference
from tests.smx.selected import some


def compiled(net: nn.Module, example: Tensor) -> tuple[ir.Model, PassReport]:
    """Return the graph in the layout `sorted`, and the report of the pass that lowers sorted layers."""
    examples = batched((example,), None)
    model = capture(net, examples, 18)
    attach(model, expressions_of(net))
    sort_neurons(model, net, examples, shifts=True)
    simplify(model)
    return model, next(report for report in compile(model, "sorted") if report.name == "LowerToSorted")


def image(*middle: nn.Module, channels: int) -> Callable[[], tuple[nn.Module, Tensor]]:
    """A mixed layer of 12 channels of 6 x 6, then something that leaves `channels` values, then a Linear."""

    def make() -> tuple[nn.Module, Tensor]:
        first = (nn.Conv2d(2, 12, 3, padding=1), some(12))
        return nn.Sequential(*first, *middle, nn.Flatten(), nn.Linear(channels, 4)), torch.randn(3, 2, 6, 6)

    return make


class Branches(nn.Module):
    """BatchNorm, pooling, a depthwise Conv, a sum and a concatenation, between mixed layers."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(2, 12, 3, padding=1), nn.BatchNorm2d(12), some(12), nn.MaxPool2d(2))
        self.branch = nn.Sequential(nn.Conv2d(12, 12, 1), some(12, seed=1), nn.Conv2d(12, 12, 3, padding=1))
        self.depthwise = nn.Conv2d(12, 12, 3, padding=1, groups=12)
        self.side = nn.Sequential(nn.Conv2d(2, 9, 2, stride=2), some(9, seed=2))
        self.head = nn.Sequential(nn.Flatten(), nn.Linear(21 * 9, 15), some(15, seed=3), nn.Linear(15, 4))

    def forward(self, x: Tensor) -> Tensor:
        stem = self.stem(x)
        body = self.depthwise(stem + self.branch(stem))
        return self.head(torch.cat([body, self.side(x)], 1))  # type: ignore[no-any-return]


class Transformer(nn.Module):
    """A block of a transformer, with a mixed layer in its feed-forward part."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.norms = nn.ModuleList([nn.LayerNorm(8), nn.LayerNorm(8)])
        self.forward_block = nn.Sequential(nn.Linear(8, 32), some(32, dim=-1), nn.Linear(32, 8))

    def forward(self, x: Tensor) -> Tensor:
        x = self.norms[0](x + self.attention(x, x, x, need_weights=False)[0])
        return self.norms[1](x + self.forward_block(x))  # type: ignore[no-any-return]


def conv1d() -> tuple[nn.Module, Tensor]:
    layers = [nn.Conv1d(2, 12, 3), some(12), nn.ConvTranspose1d(12, 8, 3), some(8, seed=1)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(80, 3)), torch.randn(3, 2, 10)


def mlp() -> tuple[nn.Module, Tensor]:
    net = nn.Sequential(nn.Linear(5, 32), nn.BatchNorm1d(32), some(32), nn.Linear(32, 9), some(9, seed=1))
    return net.append(nn.Linear(9, 2)), torch.randn(3, 5)


NETWORKS: dict[str, Callable[[], tuple[nn.Module, Tensor]]] = {
    "mlp": mlp,
    "ConvTranspose2d": image(nn.ConvTranspose2d(12, 7, 3, padding=1), some(7, seed=1), channels=7 * 36),
    "ConvTranspose1d": conv1d,
    "Upsample": image(nn.Upsample(scale_factor=2), nn.Conv2d(12, 8, 3), some(8, seed=1), channels=8 * 100),
    "adaptive pools": image(nn.AdaptiveAvgPool2d(3), nn.AdaptiveMaxPool2d(1), channels=12),
    "padding": image(nn.ReflectionPad2d(1), nn.InstanceNorm2d(12, affine=True), channels=12 * 64),
    "GroupNorm": image(nn.GroupNorm(12, 12), nn.GroupNorm(1, 12), some(12, seed=1), channels=12 * 36),
    "PixelShuffle": image(nn.PixelShuffle(2), nn.Conv2d(3, 8, 1), some(8, seed=1), channels=8 * 144),
    "branches": lambda: (Branches(), torch.randn(3, 2, 6, 6)),
    "transformer": lambda: (Transformer(), torch.randn(3, 5, 8)),
}
STAY = {"GroupNorm": "shares the order of a larger layer", "PixelShuffle": "depends on the order"}
"""Networks in which a layer can't be sorted, and why."""


def operators(model: ir.Model) -> list[str]:
    return sorted(node.op_type for node in model.graph)


@pytest.mark.parametrize("name", NETWORKS)
def test_the_export_is_as_good_without_sorting_by_hand(name: str) -> None:
    """`smx.sort` before the export changes nothing but the order of the neurons in the module."""
    torch.manual_seed(0)
    net, x = NETWORKS[name]()
    net = net.eval()
    state = copy.deepcopy(net.state_dict())
    model, report = compiled(net, x)
    by_hand, _ = compiled(smx.sort(net, example_input=x), x)
    assert operators(model) == operators(by_hand)
    assert "Split" in operators(model)
    if name in STAY:
        assert all(STAY[name] in reason for reason in report.refusals.values())
    else:
        assert report.refusals == {}
        assert not {"ScatterElements", "Gather"} & set(operators(model)) or name == "transformer"  # attention gathers
    assert all(torch.equal(value, state[key]) for key, value in net.state_dict().items())
    model.graph.inputs[0].name = "input"
    got = reference.evaluate_onnx(ir.to_proto(model), input=x.numpy())
    with torch.no_grad():
        np.testing.assert_allclose(got, net(x).numpy(), atol=2e-5, rtol=1e-4)


def test_groups_that_are_merged_lie_side_by_side(tmp_path: Path) -> None:
    """Sigmoid becomes Tanh, so both are one run wherever they are in the pool; the metadata has the new order."""
    pool = ("sigmoid", "relu", "gelu", "tanh", "leaky_relu")
    choice = [3, 0, 1, 2, 4, 0, 1, 3]
    net = nn.Sequential(nn.Linear(3, 8), smx.Mixed(choice, pool), nn.Linear(8, 2))
    path = tmp_path / "m.onnx"
    report = export_onnx(net, path, layout="sorted")
    assert report.operators["Tanh"] == report.operators["Split"] == 1
    info = Session(path).info
    assert info is not None
    provenance = info.layers[0].provenance
    assert provenance is not None
    assert provenance.neurons == (0, 1, 5, 7, 3, 4, 2, 6)  # the numbers of the neurons in the module
    assert [pool[choice[i]] for i in provenance.neurons] == [provenance.kinds[kind][0] for kind in provenance.kind]


def needs_data(h: Tensor) -> Tensor:
    if h.is_meta:
        raise RuntimeError("no data")
    return h


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (lambda h: h.cumsum(1), "cumsum depends on the order"),
        (needs_data, "the dry run ended in RuntimeError: no data"),
    ],
)
def test_why_a_layer_keeps_its_order_is_reported(function: Callable[[Tensor], Tensor], reason: str) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.mixed, self.last = nn.Linear(3, 64), some(64), nn.Linear(64, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(function(self.mixed(self.first(x))))  # type: ignore[no-any-return]

    _, report = compiled(Net(), torch.zeros(2, 3))
    assert report.refusals["mixed"].endswith(f"since {reason}")
