"""After all passes the values that a file's provenance names, brought back, are those of the formulas.

`tests/runtime/test_locate.py` brings the values of networks of every kind back.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from numpy.typing import NDArray

from smx.export.capture import describe_layers
from smx.export.passes import FoldAffine, LowerToScatter, LowerToSorted, MergeGroups, Rewriting
from smx.export.provenance import hand_over, reorder, rescale, start, with_provenance
from smx.runtime.metadata import Kind, LayerInfo, Provenance
from tests import reference
from tests.export.graphs import graph, mixed

Array = NDArray[np.float64]
PAPER = ("relu", "sigmoid", "tanh", "leaky_relu", "elu", "selu")
Passes = Sequence[type[Rewriting]]
SORTED: Passes = (FoldAffine, MergeGroups, LowerToSorted, LowerToScatter)
SCATTER: Passes = (FoldAffine, MergeGroups, LowerToScatter)
RANDOM = np.random.default_rng(0)
W, B, V, C = (RANDOM.normal(size=shape).astype(np.float32) for shape in ((6, 4), (6,), (3, 6), (3,)))
CHOICE = np.array([5, 1, 4, 2, 0, 3])  # in no order
TEXT = ", ".join(map(str, CHOICE))


def initializers(**arrays: NDArray[np.float32]) -> str:
    """Write weights as ONNX text."""
    parts = []
    for name, array in arrays.items():
        sizes, values = ",".join(map(str, array.shape)), ", ".join(repr(float(value)) for value in array.flat)
        parts.append(f"float[{sizes}] {name} = {{{values}}}")
    return f"<{', '.join(parts)}>"


def compiled(layer: str, passes: Passes) -> tuple[onnx.ModelProto, tuple[LayerInfo, ...]]:
    """Return the lowered graph of a mixed layer between two linear ones, and its layers."""
    body = f"z = Gemm <transB = 1> (x, w, b) {layer} y = Gemm <transB = 1> (h, v, c)"
    model = graph(body, "float[batch,4] x", "float[batch,3] y", initializers(w=W, b=B, v=V, c=C))
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
        _, inner, scale, shift, offset = provenance.kinds[kind]
        z[..., neuron] = (values[0][..., position] - offset) / inner
        h[..., neuron] = values[1][..., position] * scale + shift
    return z, h


@pytest.mark.parametrize("passes", [SCATTER, SORTED], ids=["scatter", "sorted"])
def test_every_activation_is_found_in_its_order_and_scale(passes: Passes) -> None:
    proto, (layer,) = compiled(mixed("z", "h", TEXT, PAPER), passes)
    provenance, x = layer.provenance, np.random.default_rng(1).normal(size=(7, 4))
    assert provenance is not None
    z = x @ W.T.astype(np.float64) + B
    for got, expected in zip(values_at(proto, provenance, x), (z, reference.mixed(z, CHOICE, PAPER)), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)
    names = [provenance.kinds[kind][0] for kind in provenance.kind]
    assert dict(zip(provenance.neurons, names, strict=True)) == {neuron: PAPER[k] for neuron, k in enumerate(CHOICE)}
    scales = {kind.activation: (kind.inner, kind.scale, kind.shift) for kind in provenance.kinds}
    assert scales["sigmoid"] == (0.5, 0.5, 0.5)
    assert scales["elu"] == (1, 1, -1)
    assert scales["selu"] == pytest.approx((1, reference.SELU_SCALE, -reference.SELU_SCALE * reference.SELU_ALPHA))
    assert scales["relu"] == scales["tanh"] == scales["leaky_relu"] == (1, 1, 0)


def test_a_moved_knee_is_found_in_its_scale() -> None:
    """SELU alone in its layer is computed of z + ln 1.6733; z and h are PyTorch's nevertheless."""
    proto, (layer,) = compiled(mixed("z", "h", ", ".join(["0"] * len(B)), ("selu",)), SORTED)
    provenance, x = layer.provenance, np.random.default_rng(2).normal(size=(7, 4))
    assert provenance is not None
    assert [kind.offset for kind in provenance.kinds] == pytest.approx([np.log(reference.SELU_ALPHA)])
    z = x @ W.T.astype(np.float64) + B
    expected = reference.mixed(z, np.zeros(len(B), np.int64), ("selu",))
    for got, wanted in zip(values_at(proto, provenance, x), (z, expected), strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-5)


def test_neurons_of_one_kind_share_an_entry() -> None:
    _, (layer,) = compiled(mixed("z", "h", "1, 0, 1, 0, 1, 1", ("relu", "tanh")), SCATTER)
    assert layer.provenance is not None
    assert layer.provenance.kinds == (Kind("tanh", 1.0, 1.0, 0.0), Kind("relu", 1.0, 1.0, 0.0))
    assert layer.provenance.kind == (0, 1, 0, 1, 0, 0)


def test_several_changes_add_up() -> None:
    """h = 3 h' - 1 and h' = 2 h'' + 5: h = 6 h'' + 14; z' = 4 z + 1 and z'' = z' / 2 + 3: z'' = 2 z + 3.5."""
    z = ir.Value(name="z")
    node = ir.node("Relu", [z])
    model = ir.Model(ir.Graph((z,), node.outputs, nodes=[node]), ir_version=10)
    node.outputs[0].name = "h"
    ones, zeros = np.ones(2), np.zeros(2)
    start(node, "layer", ["relu", "tanh"])
    rescale(node, 4 * ones, np.array([1, 0]), np.array([3, 1]), np.array([-1, 0]))
    reorder(node, np.array([1, 0]))
    rescale(node, 0.5 * ones, np.array([0, 3]), np.array([1, 2]), np.array([0, 5]))
    rescale(node, ones, zeros, ones, zeros)
    hand_over(node, node.outputs[0])
    (layer,) = with_provenance(model, (LayerInfo(name="layer", axis=1, groups={"relu": 1, "tanh": 1}),))
    assert layer.provenance == Provenance(
        z="z",
        h="h",
        neurons=(1, 0),
        kinds=(Kind("tanh", 2.0, 1.0, 0.0), Kind("relu", 2.0, 6.0, 14.0, 3.5)),
        kind=(0, 1),
    )
