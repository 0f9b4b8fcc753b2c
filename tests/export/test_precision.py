from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper
from torch import Tensor, nn

import smx
from smx.data import load
from smx.errors import InputError, SmxError
from smx.export import export_onnx
from smx.export.precision import MIN_EXAMPLES, changed_predictions, to_float16, to_int8
from smx.models import mlp
from smx.runtime import Session
from tests import reference
from tests.edited import loaded

Array = NDArray[Any]
RANDOM = np.random.default_rng(0)
FLOAT16 = 4 * 2**-11
"""Deviation: half a step of 11 significant bits, for each of some roundings in a row."""
INT8 = 0.04
"""Deviation: a normal weight has steps of 3/64, a normal input of 6/255, so that one layer is off by 1.6 %."""
LINEAR = "g (float[batch,3] x) => (float[batch,2] y) { y = MatMul (x, w) }"


def run(proto: onnx.ModelProto, *inputs: Array) -> Array:
    return Session(proto.SerializeToString()).run(*inputs)


def evaluate(proto: onnx.ModelProto, x: Array) -> Array:
    return reference.evaluate_onnx(proto, **{proto.graph.input[0].name: x})


def deviation(got: Array, expected: Array) -> float:
    """Return the root mean square of the difference, as a share of the spread of what was expected."""
    return float(np.sqrt(np.mean((got - expected) ** 2)) / expected.std())


def weights(proto: onnx.ModelProto) -> dict[str, Array]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}


def integers(proto: onnx.ModelProto) -> list[tuple[int, ...]]:
    """Return the shapes of the int8 weights."""
    return [value.shape for value in weights(proto).values() if value.dtype == np.int8 and value.ndim > 1]


def types(proto: onnx.ModelProto) -> list[int]:
    return [value.type.tensor_type.elem_type for value in (*proto.graph.input, *proto.graph.output)]


def operators(proto: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in proto.graph.node]


def parse(text: str, **initializers: Array) -> onnx.ModelProto:
    """Build a model from ONNX text; opset 19, since the reference evaluator has no DequantizeLinear before."""
    proto = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["" : 19]> {text}')
    for name, value in initializers.items():
        proto.graph.initializer.append(numpy_helper.from_array(value.astype(np.float32), name))
    for i, node in enumerate(proto.graph.node):
        node.name = f"node{i}"
    onnx.checker.check_model(proto, full_check=True)
    return proto


def export(net: nn.Module, path: Path, example: Tensor, layout: str = "sorted") -> onnx.ModelProto:
    export_onnx(net, path, example_input=example, layout=layout, opset=19, describe={"architecture": "of a test"})
    return loaded(path)


@pytest.fixture(scope="module")
def digits() -> tuple[Array, Array, nn.Sequential]:
    """Return the training and the test examples, and a network trained on them, of random activations side by side."""
    data = load("digits")
    x, test = (split.x.reshape(-1, 64).astype(np.float32) / 16 for split in (data.train, data.test))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # small steps, ten times as slow with threads that wait for a core in use
    torch.manual_seed(0)
    sizes = (64, 128, 64, 10)
    net = mlp(sizes, lambda i: smx.Mixed(torch.randint(6, (sizes[i],))))
    optimizer = torch.optim.Adam(net.parameters(), lr=0.005)
    for start in range(0, len(x) * 20, 256):
        rows = torch.arange(start, start + 256) % len(x)
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(net(torch.from_numpy(x[rows])), torch.from_numpy(data.train.y[rows]))
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    torch.set_num_threads(threads)
    return x, test, net.eval()


@pytest.fixture(scope="module", params=["scatter", "sorted"])
def model(
    request: pytest.FixtureRequest, digits: tuple[Array, Array, nn.Sequential], tmp_path_factory: pytest.TempPathFactory
) -> onnx.ModelProto:
    return export(digits[2], tmp_path_factory.mktemp("model") / "m.onnx", torch.zeros(1, 64), request.param)


def test_float16(model: onnx.ModelProto, digits: tuple[Array, Array, nn.Sequential]) -> None:
    _, test, _ = digits
    before = model.SerializeToString(deterministic=True)
    half = to_float16(model)
    assert model.SerializeToString(deterministic=True) == before
    assert types(half) == types(model) == [TensorProto.FLOAT, TensorProto.FLOAT]
    for name, value in weights(half).items():
        assert value.dtype == (np.int64 if weights(model)[name].dtype == np.int64 else np.float16)
    assert [node.op_type for node in half.graph.node if node.op_type != "Cast"] == operators(model)
    assert operators(half).count("Cast") == 2
    expected = run(model, test)
    assert changed_predictions(run(half, test), expected) <= 1
    for got in (run(half, test), evaluate(half, test)):
        assert got.dtype == np.float32
        assert deviation(got, expected) < FLOAT16


def test_int8(model: onnx.ModelProto, digits: tuple[Array, Array, nn.Sequential]) -> None:
    training, test, _ = digits
    before = model.SerializeToString(deterministic=True)
    quantized = to_int8(model, training)
    assert model.SerializeToString(deterministic=True) == before
    assert types(quantized) == types(model)
    expected = run(model, test)
    assert changed_predictions(run(quantized, test), expected) <= 2
    assert deviation(run(quantized, test), expected) < INT8
    # The integer kernels compute what the standard operators say, but a value between two steps may go to either.
    assert np.isclose(run(quantized, test), evaluate(quantized, test), rtol=1e-5, atol=1e-4).all(1).mean() > 0.99
    assert to_int8(model, training) == quantized


def test_int8_weights_have_seven_bits_and_a_scale_for_each_neuron(
    model: onnx.ModelProto, digits: tuple[Array, Array, nn.Sequential]
) -> None:
    quantized = to_int8(model, digits[0])
    stored, source = weights(quantized), {node.output[0]: node for node in quantized.graph.node}
    matrices = [value for value in weights(model).values() if value.ndim == 2 and value.dtype == np.float32]
    for node, original in zip((n for n in quantized.graph.node if n.op_type == "Gemm"), matrices, strict=True):
        matrix, scale, zero = (stored[name] for name in source[node.input[1]].input)
        assert matrix.dtype == np.int8
        np.testing.assert_allclose(scale, np.abs(original).max(1) / 64, rtol=1e-6)
        assert not zero.any()
        assert np.abs(matrix * scale[:, None] - original).max() <= scale.max() / 2 * 1.001
        assert stored[source[node.input[2]].input[0]].dtype == np.int32
        assert source[source[node.input[0]].input[0]].op_type == "QuantizeLinear"
        readers = [reader.op_type for reader in quantized.graph.node if node.output[0] in reader.input]
        assert "QuantizeLinear" not in readers  # the activations take float32 as it comes


def test_header_and_metadata_stay(model: onnx.ModelProto, digits: tuple[Array, Array, nn.Sequential]) -> None:
    for converted in (to_float16(model), to_int8(model, digits[0])):
        assert (converted.producer_name, converted.producer_version) == ("smartmixed", smx.__version__)
        assert converted.metadata_props == model.metadata_props
        assert converted.opset_import == model.opset_import
        assert {node.domain for node in converted.graph.node} == {""}
        assert converted.graph.input == model.graph.input
        assert converted.graph.output == model.graph.output
        info = Session(converted.SerializeToString()).info
        assert info is not None
        assert info.architecture == "of a test"


def test_convolutions_and_sequences(tmp_path: Path) -> None:
    torch.manual_seed(0)
    choice = torch.arange(24) % 6

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.first = nn.Conv1d(3, 24, 5), smx.Mixed(choice)
            self.inner, self.second = nn.Linear(24, 24), smx.Mixed(choice, dim=2)
            self.last = nn.Linear(24, 4)

        def forward(self, x: Tensor) -> Tensor:
            z = self.first(self.conv(x)).transpose(1, 2)
            logits: Tensor = self.last((z + self.second(self.inner(z))).mean(1))
            return logits

    proto = export(Network().eval(), tmp_path / "m.onnx", torch.zeros(1, 3, 20))
    assert {"Conv", "MatMul", "Gemm"} <= set(operators(proto))
    x = RANDOM.normal(size=(100, 3, 20)).astype(np.float32)
    expected = run(proto, x)
    half, quantized = to_float16(proto), to_int8(proto, x)
    assert deviation(run(half, x), expected) < FLOAT16
    assert deviation(evaluate(half, x), expected) < FLOAT16
    assert deviation(run(quantized, x), expected) < INT8
    np.testing.assert_allclose(run(quantized, x), evaluate(quantized, x), atol=1e-4)
    assert sorted(integers(quantized)) == [(4, 24), (24, 3, 5), (24, 24)]


def test_matmul_and_add_become_a_gemm_with_an_integer_kernel() -> None:
    """A float32 bias would make ONNX Runtime many times slower than in float32."""
    proto = parse(
        "g (float[batch,32] x) => (float[batch,32] y) { m = MatMul (x, w) a = Add (m, b) y = Tanh (a) }",
        w=RANDOM.normal(size=(32, 32)),
        b=RANDOM.normal(size=32),
    )
    x = RANDOM.normal(size=(MIN_EXAMPLES, 32)).astype(np.float32)
    quantized = to_int8(proto, x)
    assert {"QuantizeLinear", "DequantizeLinear", "Gemm", "Tanh"} == set(operators(quantized))
    assert {value.dtype for value in weights(quantized).values() if value.size > 1} == {
        np.dtype(kind) for kind in (np.int8, np.int32, np.float32)
    }
    assert deviation(run(quantized, x), run(proto, x)) < INT8


def test_sizes_are_a_half_and_a_quarter() -> None:
    proto = parse(LINEAR.replace("3", "300").replace("2", "200"), w=RANDOM.normal(size=(300, 200)))
    assert 0.5 < to_float16(proto).ByteSize() / proto.ByteSize() < 0.51
    assert 0.25 < to_int8(proto, RANDOM.normal(size=(MIN_EXAMPLES, 300))).ByteSize() / proto.ByteSize() < 0.27


def test_weights_tied_along_two_axes_and_a_fixed_batch() -> None:
    proto = parse(
        """g (float[20,32] x) => (float[20,32] y) {
            a = Gemm <transB = 1> (x, w, b) s = Tanh (a) c = Gemm (s, w, b) t = Tanh (c) y = Gemm (t, w, b)
        }""",
        w=RANDOM.normal(size=(32, 32)) * np.logspace(-2, 0, 32),
        b=RANDOM.normal(size=32),
    )
    x = RANDOM.normal(size=(50, 32)).astype(np.float32)
    quantized = to_int8(proto, x)
    assert deviation(run(quantized, x[:20]), run(proto, x[:20])) < INT8
    assert integers(quantized) == [(32, 32), (32, 32)]
    assert deviation(run(to_float16(proto), x[:20]), run(proto, x[:20])) < FLOAT16


def test_two_inputs_of_different_types() -> None:
    proto = parse(
        """g (int64[batch] token, float[batch,8] x) => (float[batch,4] y) {
            e = Gather (table, token) z = Concat <axis = 1> (e, x) y = MatMul (z, w)
        }""",
        table=RANDOM.normal(size=(10, 8)),
        w=RANDOM.normal(size=(16, 4)),
    )
    inputs = RANDOM.integers(10, size=200), RANDOM.normal(size=(200, 8))
    expected = run(proto, *inputs)
    assert deviation(run(to_int8(proto, *inputs), *inputs), expected) < INT8
    assert deviation(run(to_float16(proto), *inputs), expected) < FLOAT16
    with pytest.raises(InputError, match="expects 2 inputs, got 1"):
        to_int8(proto, inputs[0])


def test_what_float16_can_not_hold() -> None:
    kept = np.array([[65504, -65504], [1e-5, 3e-8], [1e-30, 0]])
    half = weights(to_float16(parse(LINEAR, w=kept)))["w"]
    np.testing.assert_allclose(half[:2], kept[:2], atol=2.0**-24)
    assert half[2, 0] == np.float16(2.0**-24)
    assert half[2, 1] == 0
    with pytest.raises(InputError, match=r"^w holds 70000, float16 ends at 65504; keep the model in float32$"):
        to_float16(parse(LINEAR, w=np.array([[1, -70000], [1, 1], [np.inf, 1]])))


def test_what_can_not_be_converted() -> None:
    proto = parse(LINEAR, w=RANDOM.normal(size=(3, 2)))
    x = RANDOM.normal(size=(MIN_EXAMPLES, 3))
    with pytest.raises(InputError, match="int8 needs at least 32 examples to calibrate, got 31"):
        to_int8(proto, x[1:])
    with pytest.raises(InputError, match="int8 needs at least 32 examples to calibrate, got 0"):
        to_int8(proto)
    with pytest.raises(InputError, match=r"expects an input of shape \(batch, 3\), got \(32, 2\)"):
        to_int8(proto, x[:, 1:])
    infinite = "calibration data for x hold 3 values that are not finite"
    for bad, message in (
        (np.nan, infinite),
        (np.inf, infinite),
        (1e39, r"values that float32 can hold, got .* to 1e\+39"),
    ):
        with pytest.raises(InputError, match=message):
            to_int8(proto, np.where(np.arange(MIN_EXAMPLES)[:, None] == 4, bad, x))
    double = onnx.ModelProto.FromString(proto.SerializeToString())
    double.graph.initializer[0].CopyFrom(numpy_helper.from_array(np.ones((3, 2)), "w"))
    for convert in (to_float16, lambda proto: to_int8(proto, x)):
        with pytest.raises(InputError, match=r"w is float64; only a float32 model can become (float16|int8)"):
            convert(double)
    with pytest.raises(InputError, match="no Gemm, MatMul or Conv with constant weights: nothing to make int8 of"):
        to_int8(parse("g (float[batch,3] x) => (float[batch,3] y) { y = Relu (x) }"), x)
    logarithm = parse("g (float[n,3] x) => (float[n,2] y) { z = Log (x) y = MatMul (z, w) }", w=np.ones((3, 2)))
    with pytest.raises(InputError, match="calibration data lead to values in the model that are not finite"):
        to_int8(logarithm, np.zeros((MIN_EXAMPLES, 3)))
    with pytest.raises(SmxError, match="ONNX Runtime can't quantize the model: "):
        to_int8(logarithm, -np.ones((MIN_EXAMPLES, 3)))


def test_nothing_reaches_the_screen(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging.getLogger(), "handlers", [])  # as in a program that does not log
    proto = parse(LINEAR, w=RANDOM.normal(size=(3, 2)))
    to_float16(proto)
    to_int8(proto, RANDOM.normal(size=(100, 3)))
    assert capfd.readouterr() == ("", "")
    assert logging.getLogger().handlers == []
    assert logging.root.manager.disable == 0


def test_changed_predictions() -> None:
    a = np.array([[0.1, 0.9], [0.8, 0.2], [0.3, 0.7], [0.6, 0.4]])
    assert changed_predictions(a, a * 2) == 0
    assert changed_predictions(a, a[:, ::-1]) == 4
    assert changed_predictions(a, np.where(np.arange(4)[:, None] == 1, np.nan, a)) == 1
    with pytest.raises(InputError, match=r"one shape \(B, C\), got \(4, 2\) and \(4,\)"):
        changed_predictions(a, a[:, 0])
