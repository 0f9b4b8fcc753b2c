from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

import smx
from smx.activations import BUILT_IN
from smx.errors import InputError, SmxError
from smx.export import export_onnx
from smx.export.opsets import OPSETS, convert
from smx.runtime import Session
from tests import reference
from tests.edited import loaded


def model(graph: str, opset: int = 18) -> onnx.ModelProto:
    return onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["": {opset}]> g {graph}')


def operators(proto: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in proto.graph.node]


def text(proto: onnx.ModelProto) -> list[str]:
    return [onnx.printer.to_text(node) for node in proto.graph.node]


def agree(proto: onnx.ModelProto, expected: NDArray[Any], **inputs: NDArray[Any]) -> None:
    """Hold onnxruntime and the ONNX reference evaluator against the expected values."""
    got = Session(proto.SerializeToString()).run(*inputs.values())
    np.testing.assert_allclose(got, expected, atol=3e-6, rtol=1e-5)
    if proto.opset_import[0].version < 14 and "BatchNormalization" in operators(proto):
        return  # the evaluator takes it for training
    np.testing.assert_allclose(reference.evaluate_onnx(proto, **inputs), expected, atol=3e-6, rtol=1e-5)


def test_the_newest_opset_is_the_newest_that_onnxruntime_takes() -> None:
    graph = "(float[2] x) => (float[2] y) { y = Relu(x) }"
    assert Session(model(graph, OPSETS[-1]).SerializeToString()).run(np.array([-1, 2], np.float32)).tolist() == [0, 2]
    with pytest.raises(InputError, match=f"Opset {OPSETS.stop} is under development"):
        Session(model(graph, OPSETS.stop).SerializeToString())
    for opset in (OPSETS[0] - 1, OPSETS.stop):
        with pytest.raises(InputError, match=f"opset must be between 13 and 26, got {opset}"):
            convert(model(graph), opset)


class Operators(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        y = F.hardswish(F.pad(x, (1, 1, 2, 0))) + F.hardsigmoid(F.interpolate(x, (10, 10), mode="bilinear"))
        left, right = F.mish(y.clamp(-1, 5)).chunk(2, 3)
        left = left.amax(2, keepdim=True) - right.reshape(right.shape[0], 3, 25, 2).mean((2, 3), keepdim=True)
        return left.flatten(1) + F.adaptive_avg_pool2d(y, 1).flatten(1).sum(1, keepdim=True)


class Block(nn.Module):
    """Of a transformer."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(16), nn.LayerNorm((7, 16), bias=False)
        self.qkv = nn.Linear(16, 48)
        self.mlp = nn.Sequential(nn.Linear(16, 24), smx.Mixed(torch.arange(24) % 6, dim=-1), nn.Linear(24, 16))

    def forward(self, x: Tensor) -> Tensor:
        qkv = (part.unflatten(2, (2, 8)).transpose(1, 2) for part in self.qkv(self.norm1(x)).chunk(3, 2))
        x = x + F.scaled_dot_product_attention(*qkv).transpose(1, 2).flatten(2)
        return x + self.mlp(self.norm2(x))  # type: ignore[no-any-return]


def perceptron() -> nn.Module:
    choice = [*range(len(BUILT_IN))] * 2
    return nn.Sequential(nn.Linear(5, len(choice)), smx.Mixed(choice, BUILT_IN), nn.Linear(len(choice), 3))


def cnn() -> nn.Module:
    return nn.Sequential(
        nn.Sequential(nn.Conv2d(3, 8, 3), smx.Mixed(torch.arange(8) % 6), nn.BatchNorm2d(8), nn.MaxPool2d(2)),
        nn.Sequential(nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.GroupNorm(2, 8), nn.AvgPool2d(2, ceil_mode=True)),
        nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)),
    )


NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], str]] = {
    "scatter": (perceptron, (5,), "scatter"),
    "sorted": (perceptron, (5,), "sorted"),
    "cnn": (cnn, (3, 9, 9), "sorted"),
    "block": (Block, (7, 16), "sorted"),
    "operators": (Operators, (3, 8, 8), "scatter"),
}


@pytest.fixture(scope="module", params=NETWORKS)
def network(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Return a file at opset 18, an input, and PyTorch's answer."""
    build, shape, layout = NETWORKS[request.param]
    torch.manual_seed(0)
    net, x = build().eval(), torch.randn(3, *shape)
    path = tmp_path_factory.mktemp("opsets") / "m.onnx"
    export_onnx(net, path, example_input=x[:1], layout=layout, opset=18)
    with torch.no_grad():
        return loaded(path), x.numpy(), net(x).numpy()


IR_VERSIONS = {13: 7, 14: 7, 15: 8, 16: 8, 17: 8, 18: 8, 19: 9, 20: 9, 21: 10, 22: 10, 23: 11, 24: 12, 25: 13, 26: 13}
"""https://github.com/onnx/onnx/blob/main/docs/Versioning.md#released-versions"""


@pytest.mark.parametrize("opset", OPSETS)
def test_every_opset_is_the_same_function(network: Any, opset: int) -> None:
    proto, x, expected = network
    converted = convert(proto, opset)
    assert [(entry.domain, entry.version) for entry in converted.opset_import] == [("", opset)]
    assert converted.ir_version == IR_VERSIONS[opset]
    assert {entry.key: entry.value for entry in converted.metadata_props} == {
        entry.key: entry.value for entry in proto.metadata_props
    }
    assert not any(value.metadata_props for value in (*converted.graph.value_info, *converted.graph.input))
    onnx.checker.check_model(converted, full_check=True)
    agree(converted, expected, input=x)
    agree(converted, expected[:1], input=x[:1])


X = "(float[2, 5] x) => (float[] y) "
NORM = ["ReduceMean", "Sub", "Pow", "ReduceMean", "Add", "Sqrt", "Div", "Mul"]
REWRITTEN = [  # the last opset below the one that needs no rewriting, the graph, and the operators that it becomes
    (17, X + "<int64[1] i = {1}> { y = ReduceMax <noop_with_empty_axes = 0> (x, i) }", ["ReduceMax"]),
    (17, X + "{ i = Constant <value_ints = [0]> () y = ReduceMean <keepdims = 0> (x, i) }", ["ReduceMean"]),
    (17, X + "{ a, b = Split <axis = -1, num_outputs = 2> (x) y = Concat <axis = 1> (b, a) }", ["Split", "Concat"]),
    (13, X + "<int64[2] to = {5, -1}> { y = Reshape <allowzero = 1> (x, to) }", ["Reshape"]),
    (13, X + "{ n = Shape (x) z = Reshape <allowzero = 1> (x, n) y = Neg (z) }", ["Shape", "Reshape", "Neg"]),
    (14, X + "{ n = Shape <start = -1> (x) y = Cast <to = 1> (n) }", ["Shape", "Slice", "Cast"]),
    (14, X + "{ n = Shape <start = 0, end = 1> (x) y = Cast <to = 1> (n) }", ["Shape", "Slice", "Cast"]),
    (16, X + "<float[5] s = {1, 2, 3, 4, 5}> { y = LayerNormalization <epsilon = 0.1> (x, s) }", NORM),
    (
        16,
        X.replace("float", "double").replace(" x", " x, double[2, 5] s, double[2, 5] b")
        + "{ y = LayerNormalization <axis = -2> (x, s, b) }",
        [*NORM, "Add"],
    ),
    (13, X + "{ y = HardSwish (x) }", ["HardSigmoid", "Mul"]),
    (17, X + "{ y = Mish (x) }", ["Softplus", "Tanh", "Mul"]),
    (
        15,
        X + '<int64[1, 1] i = {1}, float[1, 1] u = {9}> { y = ScatterElements <reduction = "none"> (x, i, u) }',
        ["ScatterElements"],
    ),
    (
        13,
        X + "<bool c = {1}> { y = If (c) <then_branch = t () => (float[2, 5] z) { z = HardSwish (x) },"
        " else_branch = e () => (float[2, 5] z) { z = Neg (x) }> }",
        ["If"],
    ),
]


@pytest.mark.parametrize(("opset", "graph", "expected"), REWRITTEN)
def test_a_rewrite_fires_below_the_opset_that_needs_it_and_not_in_it(
    opset: int, graph: str, expected: list[str]
) -> None:
    proto = model(graph)
    before = proto.SerializeToString()
    random = np.random.default_rng(0)
    inputs = {
        value.name: random.normal(3, 1, (2, 5)).astype(
            onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
        )
        for value in proto.graph.input
    }
    answer = reference.evaluate_onnx(proto, **inputs)
    converted = convert(proto, opset)
    assert operators(converted) == expected
    agree(converted, answer, **inputs)
    used = {name for node in converted.graph.node for name in node.input}
    assert {tensor.name for tensor in converted.graph.initializer} <= used
    later = convert(proto, opset + 1)
    assert text(later) == text(proto)
    agree(later, answer, **inputs)
    assert proto.SerializeToString() == before


def test_what_fits_stays_as_it_is() -> None:
    graph = "(float[2, 5] x) => (float[] y, int64[] c) <int64[2] n = {2, 3}, int64[2] to = {5, 2}>"
    graph += " { a, b = Split <axis = 1> (x, n) c = Shape (a)"
    proto = model(graph + " d = Concat <axis = 1> (a, b) z = Reshape (d, to) e = Relu (z) y = Add (e, e) }")
    assert text(convert(proto, 13)) == text(convert(proto, 26)) == text(proto)


Y = "=> (float[] y) { y = "
REFUSED = [
    (17, f"(float[2] x, int64[n] i) {Y} ReduceSumSquare (x, i) }}", "18 or later, as it stands in 'y'; got 17"),
    (13, "(float[n] x) => (float[] a, float[] b) { a, b = Split <num_outputs = 2> (x) }", "Split needs opset 18"),
    (13, "(float[0] x) => (float[] y) <int64[2] i = {7, 0}> { y = Reshape <allowzero = 1> (x, i) }", "Reshape .* 14"),
    (16, "(float16[2] x, float16[2] s) => (float16[] y) { y = LayerNormalization (x, s) }", "LayerNorm.* 17"),
    (13, "(float[2] x, float[2] s) => (float[] y, float[] m) { y, m = LayerNormalization (x, s, ) }", "LayerNo.* 17"),
    (
        13,
        "(float[2, 5] x, float[5] s) => (float[] y, float[] m, float[] v)"
        " { y, m, v = BatchNormalization <training_mode = 1> (x, s, s, s, s) }",
        "BatchNormalization needs opset 14",
    ),
    (15, f'(float[2] x, int64[2] i) {Y} ScatterElements <reduction = "add"> (x, i, x) }}', "ScatterElements .* 16"),
    (16, f'(float[2] x, int64[2] i) {Y} ScatterElements <reduction = "max"> (x, i, x) }}', "ScatterElements .* 18"),
    (15, f"(float[1, 1, 4, 4] x, float[1, 4] r, int64[1] i) {Y} RoiAlign (x, r, i) }}", "RoiAlign .* 16"),
    (17, f"(float[2] x, int64[2] p, int64[1] axes) {Y} Pad (x, p, , axes) }}", "Pad needs opset 18"),
    (15, f"(float[1, 1, 4, 4] x, float[1, 4, 4, 2] g) {Y} GridSample (x, g) }}", "GridSample needs opset 16"),
    (13, "(int32[2] x) => (int32[] y) { y = Relu (x) }", "Relu needs opset 14"),
    (17, "(bool[2, 5] x) => (bool[] y) <int64[1] i = {1}> { y = ReduceMax (x, i) }", "ReduceMax needs opset 20"),
    (
        17,
        "(float[4] x) => (float[] a, float[] b) <int64[2] n = {1, 3}> { a, b = Split <num_outputs = 2> (x, n) }",
        "Split needs opset 18",
    ),
    (18, "(bfloat16[2] x) => (bfloat16[] y) { y = Elu (x) }", "Elu needs opset 22"),
    (18, f"(float[2] x) {Y} Gelu (x) }}", "Gelu needs opset 20"),
]


@pytest.mark.parametrize(("opset", "graph", "message"), REFUSED)
def test_what_an_older_opset_can_not_express_is_refused(opset: int, graph: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        convert(model(graph), opset)


@pytest.mark.parametrize("opset", [13, 18, 26])
def test_a_graph_that_is_not_valid(opset: int) -> None:
    with pytest.raises(SmxError, match=r"graph is not valid: .*alpha"):
        convert(model("(float[2] x) => (float[] y) { y = Relu <alpha = 1.0> (x) }"), opset)


def test_a_decomposed_layer_norm_stands_a_large_mean() -> None:
    proto = model("(float[3, 64] x, float[64] s) => (float[] y) { y = LayerNormalization <epsilon = 0.0> (x, s) }")
    x = np.random.default_rng(0).normal(1e4, 1, (3, 64)).astype(np.float32)
    centred = x.astype(np.float64) - x.mean(1, dtype=np.float64, keepdims=True)
    expected = centred / np.sqrt(np.mean(centred**2, axis=1, keepdims=True))
    got = Session(convert(proto, 13).SerializeToString()).run(x, np.ones(64, np.float32))
    np.testing.assert_allclose(got, expected, atol=2e-3)
