"""The sorted layout: which orders may change, and that the function does not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from torch import Tensor, nn

import smx
from smx.export import export_onnx
from smx.export.capture import mixed_nodes
from smx.export.passes import LowerToSorted, SortNeurons
from smx.export.passes.sort_neurons import PINNED
from tests import reference
from tests.export.graphs import choices, graph, mixed, run

WEIGHTS = (
    "<float[4,3] w = {1,-2,3, 4,5,-6, -7,8,9, 1,1,-1}, float[4] b = {1,-2,3,-4}, float[4,2] v = {1,2,3,4,5,6,7,8}>"
)
BODY = f"z = Gemm <transB = 1> (x, w, b) {mixed('z', 'h', '2, 0, 2, 1')} y = MatMul(h, v)"


def prepared(
    body: str, outputs: str = "float[batch,2] y", weights: str = WEIGHTS, inputs: str = "float[batch,3] x"
) -> ir.Model:
    return graph(body, inputs, outputs, weights)


def test_sort_neurons_fires_between_two_weights() -> None:
    x = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    before = run(prepared(BODY), x=x)
    model = prepared(BODY)
    assert SortNeurons()(model).modified
    assert choices(model) == [[0, 1, 2, 2]]
    weight = model.graph.initializers["w"].const_value
    assert weight is not None
    assert weight.numpy().tolist() == [[4, 5, -6], [1, 1, -1], [1, -2, 3], [-7, 8, 9]]
    LowerToSorted()(model)
    np.testing.assert_allclose(run(model, x=x), before, rtol=1e-5, atol=1e-5)
    assert [node.op_type for node in model.graph][:4] == ["Gemm", "Split", "Relu", "Tanh"]
    assert not {"Gather", "ScatterElements"} & {node.op_type for node in model.graph}


@pytest.mark.parametrize(
    ("body", "options", "reason"),
    [
        (
            f"z = Gemm <transB = 1> (x, w, b) {mixed('z', 'y', '2, 0, 2, 1')}",
            {"outputs": "float[batch,4] y"},
            "it is an output",
        ),
        (mixed("x", "y", "2, 0, 2"), {"outputs": "float[batch,3] y"}, "it is an output"),
        (
            f"z = Gemm <transB = 1> (x, w, b) {mixed('z', 'h', '2, 0, 2, 1')} one = Constant <value_int = 1> ()"
            " s = CumSum(h, one) y = MatMul(s, v)",
            {},
            "CumSum depends on the order",
        ),
    ],
)
def test_sort_neurons_leaves_what_is_pinned(body: str, options: dict[str, str], reason: str) -> None:
    model = prepared(body, **options)
    before = choices(model)
    assert not SortNeurons()(model).modified
    assert choices(model) == before
    assert reason in mixed_nodes(model)[0].meta[PINNED]


def test_a_residual_sum_ties_its_branches() -> None:
    """One order for both: the first is sorted, the second within its groups."""
    model = prepared(
        f"z = Gemm <transB = 1> (x, w, b) {mixed('z', 'h', '2, 0, 2, 1')} u = Gemm <transB = 1> (x, w, b) r = Add(u, h)"
        f" {mixed('r', 'k', '1, 1, 0, 0')} y = MatMul(k, v)"
    )
    assert SortNeurons()(model).modified
    first, second = choices(model)
    assert first == [0, 1, 2, 2]
    assert second == [1, 0, 0, 1]


def test_orders_move_through_long_chains() -> None:
    steps = " ".join(f"h{i + 1} = Neg(h{i})" for i in range(1500))
    model = prepared(f"z = Gemm <transB = 1> (x, w, b) {mixed('z', 'h0', '2, 0, 2, 1')} {steps} y = MatMul(h1500, v)")
    assert SortNeurons()(model).modified


def sorted_export(net: nn.Module, example: Tensor, path: Path) -> list[str]:
    """Export in both layouts, hold them against each other and PyTorch, and return the sorted one's operators."""
    net = net.eval()
    for layout in ("scatter", "sorted"):
        export_onnx(net, path / f"{layout}.onnx", example_input=example, layout=layout)
    x = torch.randn(3, *example.shape[1:])
    with torch.no_grad():
        expected = net(x).numpy()
    for layout in ("scatter", "sorted"):
        got = reference.evaluate_onnx(str(path / f"{layout}.onnx"), input=x.numpy())
        np.testing.assert_allclose(got, expected, atol=2e-5, rtol=1e-4)
    return [node.op_type for node in onnx.load(path / "sorted.onnx").graph.node]


def some(neurons: int, dim: int = 1, seed: int = 0) -> smx.Mixed:
    return smx.Mixed(torch.randint(6, (neurons,), generator=torch.Generator().manual_seed(seed)), dim=dim)


class Residual(nn.Module):
    """What a permutation moves through: BatchNorm, pooling, a depthwise Conv, a sum, a concatenation, Flatten."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(2, 12, 3, padding=1), nn.BatchNorm2d(12), some(12), nn.MaxPool2d(2))
        self.branch = nn.Sequential(nn.Conv2d(12, 12, 1), some(12, seed=1), nn.Conv2d(12, 12, 3, padding=1))
        self.depthwise = nn.Conv2d(12, 12, 3, padding=1, groups=12)
        self.side = nn.Sequential(nn.Conv2d(2, 9, 2, stride=2), some(9, seed=2))
        self.head = nn.Sequential(
            nn.Flatten(), nn.Dropout(0.5), nn.Linear(21 * 9, 15), some(15, seed=3), nn.Linear(15, 4)
        )

    def forward(self, x: Tensor) -> Tensor:
        stem = self.stem(x)
        body = self.depthwise(stem + self.branch(stem))
        return self.head(torch.cat([body, self.side(x)], 1))  # type: ignore[no-any-return]


def test_permutations_move_through_what_keeps_channels_apart(tmp_path: Path) -> None:
    operators = sorted_export(Residual(), torch.randn(1, 2, 6, 6), tmp_path)
    assert "ScatterElements" not in operators
    assert operators.count("Split") == 4


def test_a_transformers_feed_forward_block_is_sorted(tmp_path: Path) -> None:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
            self.norms = nn.ModuleList([nn.LayerNorm(8), nn.LayerNorm(8)])
            self.forward_block = nn.Sequential(nn.Linear(8, 32), some(32, dim=-1), nn.Linear(32, 8))

        def forward(self, x: Tensor) -> Tensor:
            x = self.norms[0](x + self.attention(x, x, x, need_weights=False)[0])
            return self.norms[1](x + self.forward_block(x))  # type: ignore[no-any-return]

    operators = sorted_export(Block(), torch.randn(1, 5, 8), tmp_path)
    assert "ScatterElements" not in operators


@pytest.mark.parametrize("net", [
    nn.Sequential(nn.Conv2d(2, 12, 1), some(12), nn.PixelShuffle(2), nn.Flatten(), nn.Linear(3 * 64, 2)),
    nn.Sequential(nn.Conv2d(2, 12, 1), some(12), nn.Conv2d(12, 12, 1, groups=3), nn.Flatten(), nn.Linear(192, 2)),
    nn.Sequential(nn.Conv2d(2, 12, 1), some(12)),
])  # fmt: skip
def test_where_channels_are_mixed_the_layer_stays(net: nn.Module, tmp_path: Path) -> None:
    sorted_export(net, torch.randn(1, 2, 4, 4), tmp_path)
    report = export_onnx(net, tmp_path / "m.onnx", example_input=torch.randn(1, 2, 4, 4), layout="sorted")
    assert report.operators.get("ScatterElements", 0) == 0 or report.refusals("LowerToSorted")
