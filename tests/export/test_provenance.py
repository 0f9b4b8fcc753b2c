"""After all passes the values that a file's provenance names, brought back, are those of the formulas."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from numpy.typing import NDArray

from smx.export.capture import describe_layers
from smx.export.passes import FoldAffine, LowerToScatter, LowerToSorted, MergeGroups, Rewriting, SortNeurons
from smx.export.provenance import hand_over, reorder, rescale, start, with_provenance
from smx.runtime.metadata import LayerInfo, Provenance
from tests import reference
from tests.export.graphs import graph, mixed

Array = NDArray[np.float64]
PAPER = ("relu", "sigmoid", "tanh", "leaky_relu", "elu", "selu")
Passes = Sequence[type[Rewriting]]
SORTED: Passes = (FoldAffine, MergeGroups, SortNeurons, LowerToSorted, LowerToScatter)
SCATTER: Passes = (FoldAffine, MergeGroups, LowerToScatter)
both_layouts = pytest.mark.parametrize("passes", [SCATTER, SORTED], ids=["scatter", "sorted"])
RANDOM = np.random.default_rng(0)
W, B, V, C = (RANDOM.normal(size=shape).astype(np.float32) for shape in ((6, 4), (6,), (3, 6), (3,)))
U = RANDOM.normal(size=(6, 6)).astype(np.float32)
CHOICE = np.array([5, 1, 4, 2, 0, 3])
"""In no order: sorting moves every neuron."""
TEXT = ", ".join(map(str, CHOICE))


def initializers(**arrays: NDArray[np.float32]) -> str:
    """Write weights as ONNX text."""
    parts = []
    for name, array in arrays.items():
        sizes, values = ",".join(map(str, array.shape)), ", ".join(repr(float(value)) for value in array.flat)
        parts.append(f"float[{sizes}] {name} = {{{values}}}")
    return f"<{', '.join(parts)}>"


def compiled(
    body: str, passes: Passes, outputs: int = 3, **weights: NDArray[np.float32]
) -> tuple[onnx.ModelProto, tuple[LayerInfo, ...]]:
    """Return the lowered graph and its layers."""
    model = graph(body, "float[batch,4] x", f"float[batch,{outputs}] y", initializers(**weights))
    layers = describe_layers(model)
    for step in passes:
        step()(model)
    model.graph.opset_imports.pop("smx", None)
    return ir.to_proto(model), with_provenance(model, layers)


def values_at(proto: onnx.ModelProto, provenance: Provenance, x: Array) -> tuple[Array, Array]:
    """Return z and h of a layer, neuron by neuron as its provenance says, on the last axis."""
    values = []
    for name in (provenance.z, provenance.h):
        seen = onnx.ModelProto()
        seen.CopyFrom(proto)
        seen.graph.ClearField("output")
        seen.graph.output.append(onnx.ValueInfoProto(name=name))
        values.append(reference.evaluate_onnx(seen, x=x.astype(np.float32)).astype(np.float64))
    z, h = np.full_like(values[0], np.nan), np.full_like(values[1], np.nan)
    for position, (neuron, kind) in enumerate(zip(provenance.neurons, provenance.kind, strict=True)):
        _, inner, scale, shift = provenance.kinds[kind]
        z[..., neuron] = values[0][..., position] / inner
        h[..., neuron] = values[1][..., position] * scale + shift
    return z, h


def examples() -> Array:
    return np.random.default_rng(1).normal(size=(7, 4))


def agree(got: tuple[Array, Array], expected: tuple[Array, Array]) -> None:
    for a, b in zip(got, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


def between(layer: str = mixed("z", "h", TEXT, PAPER)) -> str:
    return f"z = Gemm <transB = 1> (x, w, b) {layer} y = Gemm <transB = 1> (h, v, c)"


@both_layouts
def test_every_activation_is_found_in_its_order_and_scale(passes: Passes) -> None:
    proto, (layer,) = compiled(between(), passes, w=W, b=B, v=V, c=C)
    provenance, x = layer.provenance, examples()
    assert provenance is not None
    z = x @ W.T.astype(np.float64) + B
    agree(values_at(proto, provenance, x), (z, reference.mixed(z, CHOICE, PAPER)))
    names = [provenance.kinds[kind][0] for kind in provenance.kind]
    assert dict(zip(provenance.neurons, names, strict=True)) == {neuron: PAPER[k] for neuron, k in enumerate(CHOICE)}
    scales = {name: (inner, scale, shift) for name, inner, scale, shift in provenance.kinds}
    assert scales["sigmoid"] == (0.5, 0.5, 0.5)
    assert scales["elu"] == (1, 1, -1)
    assert scales["selu"] == pytest.approx((1, reference.SELU_SCALE, -reference.SELU_SCALE * reference.SELU_ALPHA))
    assert scales["relu"] == scales["tanh"] == scales["leaky_relu"] == (1, 1, 0)


def test_scatter_keeps_the_order_and_sorted_does_not() -> None:
    orders = []
    for passes in (SCATTER, SORTED):
        _, (layer,) = compiled(between(), passes, w=W, b=B, v=V, c=C)
        assert layer.provenance is not None
        orders.append(layer.provenance.neurons)
    assert orders[0] == tuple(range(6))
    assert orders[1] != orders[0]
    assert sorted(orders[1]) == list(range(6))


def test_neurons_of_one_kind_share_an_entry() -> None:
    body = between(mixed("z", "h", "1, 0, 1, 0, 1, 1", ("relu", "tanh")))
    _, (layer,) = compiled(body, SCATTER, w=W, b=B, v=V, c=C)
    assert layer.provenance is not None
    assert layer.provenance.kinds == (("tanh", 1.0, 1.0, 0.0), ("relu", 1.0, 1.0, 0.0))
    assert layer.provenance.kind == (0, 1, 0, 1, 0, 0)


@both_layouts
def test_layers_that_share_an_order_are_both_found(passes: Passes) -> None:
    other = "0, 1, 1, 0, 2, 0"
    body = (
        f"z = Gemm <transB = 1> (x, w, b) {mixed('z', 'h', TEXT, PAPER)} r = Gemm <transB = 1> (x, w, b) s = Add(r, h)"
        f" {mixed('s', 'k', other, ('tanh', 'relu', 'elu'))} y = Gemm <transB = 1> (k, v, c)"
    )
    proto, layers = compiled(body, passes, w=W, b=B, v=V, c=C)
    x = examples()
    z = x @ W.T.astype(np.float64) + B
    h = reference.mixed(z, CHOICE, PAPER)
    second = np.array([int(k) for k in other.split(", ")])
    expected = [(z, h), (z + h, reference.mixed(z + h, second, ("tanh", "relu", "elu")))]
    assert [layer.name for layer in layers] == ["h", "k"]
    for layer, values in zip(layers, expected, strict=True):
        assert layer.provenance is not None
        agree(values_at(proto, layer.provenance, x), values)


@both_layouts
def test_a_layer_that_is_called_twice_is_found_twice(passes: Passes) -> None:
    first = mixed("z", "h", TEXT, PAPER).replace('layer = "h"', 'layer = "act"')
    second = mixed("t", "k", TEXT, PAPER).replace('layer = "k"', 'layer = "act"')
    body = (
        f"z = Gemm <transB = 1> (x, w, b) {first} t = Gemm <transB = 1> (h, u, b) {second}"
        " y = Gemm <transB = 1> (k, v, c)"
    )
    proto, layers = compiled(body, passes, w=W, b=B, u=U, v=V, c=C)
    x = examples()
    assert [layer.name for layer in layers] == ["act", "act"]
    h = x
    for layer, weight in zip(layers, (W, U), strict=True):
        z = h @ weight.T.astype(np.float64) + B
        h = reference.mixed(z, CHOICE, PAPER)
        assert layer.provenance is not None
        agree(values_at(proto, layer.provenance, x), (z, h))


@both_layouts
def test_inputs_and_outputs_can_be_a_layers_values(passes: Passes) -> None:
    proto, (layer,) = compiled(mixed("x", "y", "1, 0, 1, 2"), passes, outputs=4)
    x = examples()
    assert layer.provenance is not None
    assert (layer.provenance.z, layer.provenance.h) == ("x", "y")
    expected = reference.mixed(x, np.array([1, 0, 1, 2]), ("relu", "tanh", "elu"))
    agree(values_at(proto, layer.provenance, x), (x, expected))


@both_layouts
def test_what_is_folded_before_a_layer_is_part_of_its_z(passes: Passes) -> None:
    scale = np.array([[2, 3, -1, 0.5, 1, -2]], np.float32)
    body = (
        f"t = Gemm <transB = 1> (x, w, b) z = Mul(t, s) {mixed('z', 'h', TEXT, PAPER)} n = Mul(h, s)"
        " y = Gemm <transB = 1> (n, v, c)"
    )
    proto, (layer,) = compiled(body, passes, w=W, b=B, s=scale, v=V, c=C)
    assert "Mul" not in {node.op_type for node in proto.graph.node if "s" in node.input}
    x = examples()
    z = (x @ W.T.astype(np.float64) + B) * scale
    assert layer.provenance is not None
    agree(values_at(proto, layer.provenance, x), (z, reference.mixed(z, CHOICE, PAPER)))


def test_several_changes_add_up() -> None:
    """h = 3 h' - 1 and h' = 2 h'' + 5: h = 6 h'' + 14."""
    z = ir.Value(name="z")
    node = ir.node("Relu", [z])
    model = ir.Model(ir.Graph((z,), node.outputs, nodes=[node]), ir_version=10)
    node.outputs[0].name = "h"
    ones, zeros = np.ones(2), np.zeros(2)
    start(node, "layer", ["relu", "tanh"])
    rescale(node, 4 * ones, np.array([3, 1]), np.array([-1, 0]))
    reorder(node, np.array([1, 0]))
    rescale(node, 0.5 * ones, np.array([1, 2]), np.array([0, 5]))
    rescale(node, ones, ones, zeros)
    hand_over(node, node.outputs[0])
    (layer,) = with_provenance(model, (LayerInfo(name="layer", axis=1, groups={"relu": 1, "tanh": 1}),))
    assert layer.provenance == Provenance(
        z="z", h="h", neurons=(1, 0), kinds=(("tanh", 2.0, 1.0, 0.0), ("relu", 2.0, 6.0, 14.0)), kind=(0, 1)
    )
