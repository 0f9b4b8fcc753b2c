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
from tests.smx.selected import Net, some
from tests.smx.sorting_cases import MOVES, Case


def compiled(net: nn.Module, example: Tensor) -> tuple[ir.Model, PassReport]:
    """Return the graph in the layout `sorted`, and the report of the pass that lowers sorted layers."""
    examples = batched((example,), None)
    model = capture(net, examples, 18)
    attach(model, expressions_of(net))
    sort_neurons(model, net, examples, shifts=True)
    simplify(model)
    return model, next(report for report in compile(model, "sorted") if report.name == "LowerToSorted")


NAMES = {
    "BatchNorm", "a residual sum", "concatenation", "Conv and depthwise", "transposed Conv", "InstanceNorm", "pooling",
    "GroupNorm, one group", "GroupNorm, each for itself", "resizing", "padding", "tokens", "attention",
}  # fmt: skip


def operators(model: ir.Model) -> list[str]:
    return sorted(node.op_type for node in model.graph)


@pytest.mark.parametrize("case", [case for case in MOVES if case.name in NAMES], ids=lambda case: case.name)
def test_the_export_is_as_good_without_sorting_by_hand(case: Case) -> None:
    """`smx.sort` before the export changes nothing but the order of the neurons in the module."""
    torch.manual_seed(0)
    net, x = case.network()
    net = net.eval()
    state = copy.deepcopy(net.state_dict())
    model, report = compiled(net, x)
    by_hand, _ = compiled(smx.sort(net, example_input=x), x)
    assert operators(model) == operators(by_hand)
    assert "Split" in operators(model)
    assert report.refusals == {}
    assert case.name == "attention" or not {"ScatterElements", "Gather"} & set(operators(model))
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


def needs_a_gradient(h: Tensor) -> Tensor:
    if torch.is_inference_mode_enabled():
        raise RuntimeError("no gradient")
    return h


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (lambda h: h.cumsum(1), "cumsum depends on the order"),
        (needs_a_gradient, "the dry run ended in RuntimeError: no gradient"),
    ],
)
def test_why_a_layer_keeps_its_order_is_reported(function: Callable[[Tensor], Tensor], reason: str) -> None:
    parts = {"first": nn.Linear(3, 64), "mixed": some(64), "last": nn.Linear(64, 2)}
    net = Net(lambda net, x: net.last(function(net.mixed(net.first(x)))), **parts)
    _, report = compiled(net, torch.zeros(2, 3))
    assert report.refusals["mixed"].endswith(f"since {reason}")
