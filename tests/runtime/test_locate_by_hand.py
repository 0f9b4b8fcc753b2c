"""What is said of a fault in a model of a few nodes, whose reference is NumPy."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx.reference import ReferenceEvaluator

from smx.errors import InputError
from smx.runtime.metadata import Kind, LayerInfo, ModelInfo, Provenance
from smx.runtime.parity.compare import Array
from smx.runtime.parity.locate import ACTIVATION, BEFORE, OUTPUT, LayerArrays, Location, Reference, Values, locate
from tests.runtime.fakes import HEAD

ORDER = [2, 0, 3, 1]
"""Which neuron stands at each position in the file: two of ReLU, then two of sigmoid, which are a tanh of z / 2."""
PROVENANCE = Provenance(
    z="z", h="h", neurons=tuple(ORDER), kinds=(Kind("sigmoid", 0.5, 0.5, 0.5), Kind("relu", 1, 1, 0)), kind=(1, 1, 0, 0)
)
NAMES = ["relu", "sigmoid", "relu", "sigmoid"]
RANDOM = np.random.default_rng(0)
W1, B1, W2, B2 = (RANDOM.normal(size=shape) for shape in ((3, 4), 4, (4, 2), 2))
X = np.random.default_rng(1).normal(size=(5, 3)).astype(np.float32)

TEXT = """(float[N,3] x) => (float[N,2] y) {
    z = Gemm(x, w1, b1)  a, b = Split<num_outputs = 2, axis = -1>(z)  r = Relu(a)  t = Tanh(b)
    h = Concat<axis = -1>(r, t)  y = Gemm(h, w2, b2)
}"""
STEPS = """(float[N,2,3] x) => (float[N,2,2] y) <int64[2] rows = {-1, 3}, int64[3] back = {-1, 2, 2}> {
    flat = Reshape(x, rows)  z = Gemm(flat, w1, b1)  a, b = Split<num_outputs = 2, axis = -1>(z)
    r = Relu(a)  t = Tanh(b)  h = Concat<axis = -1>(r, t)  e = Gemm(h, w2, b2)  y = Reshape(e, back)
}"""
SUM = (
    TEXT.replace("(float[N,2] y)", "(float[N] y)")
    .replace("y = Gemm(h", "o = Gemm(h")
    .replace("b2)\n", "b2)  axes = Constant<value_ints = [1]>()  y = ReduceSum<keepdims = 0>(o, axes)\n")
)
TURNED = """(float[N,2,3] x) => (float[N,2,2] y) {
    flat = Transpose<perm = [1, 0, 2]>(x)  m = MatMul(flat, w1)  z = Add(m, b1)
    a, b = Split<num_outputs = 2, axis = -1>(z)  r = Relu(a)  t = Tanh(b)  h = Concat<axis = -1>(r, t)
    n = MatMul(h, w2)  o = Add(n, b2)  y = Transpose<perm = [1, 0, 2]>(o)
}"""


def write(
    path: Path,
    text: str = TEXT,
    *,
    add: dict[str, Any] | None = None,
    axis: int = 1,
    precision: str = "float32",
    **provenance: Any,
) -> Path:
    """Write the model; `add` is added to its weights, which are in the file's order and scale."""
    halves = np.where(np.array(NAMES)[ORDER] == "sigmoid", 0.5, 1)
    weights = {
        "w1": W1[:, ORDER] * halves, "b1": B1[ORDER] * halves, "w2": W2[ORDER] * halves[:, None],
        "b2": B2 + 0.5 * W2[[1, 3]].sum(0),
    }  # fmt: skip
    proto = onnx.parser.parse_model(HEAD + text)
    for name, values in weights.items():
        array = (values + (add or {}).get(name, 0)).astype(np.float32)
        proto.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    layer = LayerInfo(name="act", axis=axis, groups={}, provenance=PROVENANCE)
    info = ModelInfo(
        smx_version="0", architecture="", layout="", pool=(), layers=(layer,), tolerance={}, precision=precision
    )
    properties = info.to_properties()
    written = [{**entry, "provenance": {**entry["provenance"], **provenance}} for entry in map(asdict, info.layers)]
    onnx.helper.set_model_props(proto, {**properties, "smx.layers": json.dumps(written)})
    onnx.save(proto, path)
    return path


def activated(z: Array) -> Array:
    with np.errstate(over="ignore"):
        return np.where(np.array(NAMES) == "relu", np.maximum(z, 0), 1 / (1 + np.exp(-z)))


def network(dtype: type = np.float64, form: Callable[[Array], Array] = lambda x: x) -> Reference:
    def run(x: Array, *, given: Sequence[LayerArrays]) -> Values:
        (part,) = given
        z: Array = form(x).astype(dtype) @ W1.astype(dtype) + B1.astype(dtype)
        y: Array = part.h.astype(dtype) @ W2.astype(dtype) + B2.astype(dtype)
        return Values([LayerArrays("act", z, activated(part.z.astype(dtype)))], [y])

    return run


def located(path: Path, *x: Array, reference: Reference | None = None, **options: Any) -> Location:
    return locate(path, reference or network(np.float32), network(), *x, **options)


@pytest.mark.parametrize(
    ("text", "add", "layer", "part", "neurons"),
    [
        (TEXT, {"b1": [0, 0.5, 0, 0]}, "act", BEFORE, (0,)),
        (TEXT, {"b1": [0, 0, 0.1, 0.5]}, "act", BEFORE, (1, 3)),
        (TEXT.replace("Relu(a)", "Elu<alpha=1.5>(a)"), {}, "act", ACTIVATION, None),
        (TEXT.replace("Tanh(b)", "Sigmoid(b)"), {}, "act", ACTIVATION, None),
        (TEXT, {"b2": [0, 1e-3]}, "y", OUTPUT, (1,)),
        (TEXT, {"b2": [np.nan, 1]}, "y", OUTPUT, (0, 1)),
    ],
)  # fmt: skip
def test_a_fault_is_told_with_all_that_is_known(
    text: str, add: dict[str, Any], layer: str, part: str, neurons: tuple[int, ...] | None, tmp_path: Path
) -> None:
    path = write(tmp_path / "m.onnx", text, add=add)
    outputs: Any = ReferenceEvaluator(onnx.load(path)).run(None, {"x": X}, intermediate=True)
    z, h = (np.take(outputs[name].astype(np.float64), np.argsort(ORDER), 1) for name in "zh")
    sigmoid = np.array(NAMES) == "sigmoid"
    z, h = np.where(sigmoid, 2 * z, z), np.where(sigmoid, 0.5 * h + 0.5, h)
    got, expected = {
        BEFORE: (z, X @ W1 + B1), ACTIVATION: (h, activated(z)), OUTPUT: (outputs["y"], h @ W2 + B2),
    }[part]  # fmt: skip
    location = located(path, X)
    fault, place = location.fault, location.places[-1]
    assert fault is not None
    assert (fault.layer, fault.part) == (place.layer, place.part) == (layer, part)
    if neurons:
        assert fault.neurons == neurons
    errors = np.nan_to_num(np.abs(got - expected), nan=np.inf)
    assert set(fault.neurons) == set(np.flatnonzero((errors > 1e-4).any(0)).tolist())
    assert errors[fault.example, fault.neuron] >= 0.8 * errors[:, fault.neuron].max()
    assert fault.neuron == fault.neurons[0]
    assert (fault.got, fault.expected) == pytest.approx(
        (got[fault.example, fault.neuron], expected[fault.example, fault.neuron]), rel=1e-5, abs=1e-5, nan_ok=True
    )
    assert place.difference == pytest.approx(errors[fault.example, fault.neuron], rel=1e-3)
    assert fault.examples == (errors > 1e-4).any(1).sum()
    assert fault.activation == (None if part == OUTPUT else NAMES[fault.neuron])
    order = [("act", BEFORE), ("act", ACTIVATION), ("y", OUTPUT)]
    assert [(each.layer, each.part) for each in location.places] == order[: order.index((layer, part)) + 1]
    assert all(each.difference < each.limit for each in location.places[:-1])
    assert json.loads(json.dumps(location.to_dict()))["fault"]["neuron"] == fault.neuron


@pytest.mark.parametrize("raw", [False, True])
@pytest.mark.parametrize(("precision", "bits"), [("float32", 23), ("float16", 10), ("int8", 7)])
@pytest.mark.parametrize(("factor", "error"), [(1e-3, 0.0), (100, 0.0), (1, 0.25)])
def test_the_limit_is_what_rounding_explains(
    factor: float, error: float, precision: str, bits: int, raw: bool, tmp_path: Path
) -> None:
    """The reference differs from the exact network by an error that grows from run to run, and nothing else."""
    rounding = 2.0**-bits
    right: list[Any] = []
    runs: list[Any] = []

    def exact(x: Array, *, given: Sequence[LayerArrays]) -> Values:
        right.append((x, *given, network()(x, given=given)))
        return right[-1][-1]  # type: ignore[no-any-return]

    def reference(x: Array, *, given: Sequence[LayerArrays]) -> Values:
        runs.append((x, *given))
        values = right[-1][-1]
        z, h, y = (array + (-1) ** len(runs) * len(runs) * error for array in (*values.layers[0][1:], *values.outputs))
        return Values([LayerArrays("act", z, h)], [y])

    text = (
        TEXT.replace("float[N,3] x", "uint8[N,3] x").replace("Gemm(x", "Gemm(c").replace("{", "{ c = Cast<to=1>(x)", 1)
    )
    quiet = np.linalg.pinv(W1[:, [0, 2]].T) @ (-0.5 - B1[[0, 2]])  # both ReLUs are 0, and no activation is above 1
    x = np.array([[3, 200, 40]], np.uint8) if raw else np.stack([quiet, X[0] * factor]).astype(np.float32)
    location = locate(write(tmp_path / "m.onnx", text if raw else TEXT, precision=precision), reference, exact, x)
    assert location.fault is None
    (given, part, values), *others = right
    assert (len(runs), others) == (4, [])
    for place, array in zip(location.places, (*values.layers[0][1:], *values.outputs), strict=True):
        limits = 16 * np.maximum(4 * error, rounding * np.maximum(1, np.abs(array).max(1)))
        assert np.isclose(place.limit, limits, rtol=1e-6).any()
    moved = []
    for run, rounded in runs:
        assert rounded.layer == "act"
        assert run.dtype == x.dtype
        for array, original, least in ((run, given, 0), (rounded.z, part.z, 0), (rounded.h, part.h, 1)):
            size = np.maximum(least, np.abs(original).max(1, keepdims=True))
            moved.append(((array.astype(float) - original) / (rounding * size)).ravel())
    inputs, steps = np.concatenate(moved[::3]), np.concatenate(moved[1::3] + moved[2::3])
    assert (inputs == 0).all() == raw
    assert 1.5 < np.abs(steps).max() < 2.1
    assert 0.75 < np.abs(steps).mean() < 1.25
    assert np.abs(steps.mean()) < 0.5
    assert len(np.unique(np.round(steps, 3))) > 0.8 * len(steps)


@pytest.mark.parametrize(("factor", "broken"), [(0.7, False), (1.4, True)])
def test_a_fault_is_a_difference_above_the_limit(factor: float, broken: bool, tmp_path: Path) -> None:
    right: list[Values] = []

    def exact(x: Array, *, given: Sequence[LayerArrays]) -> Values:
        layers, (y,) = network()(x, given=given)
        y[0, 1] += factor * 16 * 2.0**-23 * max(1, np.abs(y).max())
        right.append(Values(layers, [y]))
        return right[-1]

    fault = locate(write(tmp_path / "m.onnx"), lambda *x, given: right[-1], exact, X[:1]).fault
    assert (fault is not None) == broken
    assert fault is None or (fault.neurons, fault.examples) == ((1,), 1)


def flat(x: Array) -> Array:
    return x.reshape(-1, 3)


@pytest.mark.parametrize(
    ("text", "axis", "form", "back"),
    [
        (TEXT, 1, lambda x: x, lambda y, n: y),
        (STEPS, 1, flat, lambda y, n: y.reshape(n, 2, 2)),
        (TURNED, 2, lambda x: x.transpose(1, 0, 2), lambda y, n: y.transpose(1, 0, 2)),
        (SUM, 1, lambda x: x, lambda y, n: y.sum(1)),
    ],
)
@pytest.mark.parametrize("batch", ["N", "3"])
def test_the_examples_that_break_are_named(
    text: str,
    axis: int,
    form: Callable[[Array], Array],
    back: Callable[[Array, int], Array],
    batch: str,
    tmp_path: Path,
) -> None:
    """Batches are filled up with copies; where the steps go first, each example has the values of its whole batch."""
    x = np.random.default_rng(2).normal(size=(7, 2, 3) if axis == 2 or "rows" in text else (7, 3)).astype(np.float32)

    def in_parts(x: Array, *, given: Sequence[LayerArrays]) -> Values:
        layers, (y,) = network(np.float64, form)(x, given=given)
        return Values(layers, [back(y, len(x))])

    path = write(tmp_path / "m.onnx", text.replace("[N", f"[{batch}"), axis=axis)
    assert locate(path, in_parts, in_parts, x).fault is None
    six = "Clip(a, zero, six)"
    faulty = text.replace("Relu(a)", six).replace(
        "{", "{ zero = Constant<value_float=0.>() six = Constant<value_float=6.>()", 1
    )
    if "<int64" in text:
        faulty = text.replace("Relu(a)", six).replace(
            "back = {-1, 2, 2}", "back = {-1, 2, 2}, float zero = {0}, float six = {6}"
        )
    write(path, faulty.replace("[N", f"[{batch}"), axis=axis)
    assert locate(path, in_parts, in_parts, x).fault is None
    for loud in ([5], [5, 0]):
        x[loud] *= 100
        fault = locate(path, in_parts, in_parts, x).fault
        assert fault is not None
        assert (fault.layer, fault.part, fault.activation, fault.got) == ("act", ACTIVATION, "relu", 6)
        rows = [[0, 1, 2], [3, 4, 5], [6, 0, 1]] if batch == "3" else [list(range(7))]
        expected = (
            set(loud)
            if axis == 1
            else {i for row in rows if {*row} & {*loud} for i in row if i in row[:1] or i > row[0]}
        )
        assert fault.examples == len(expected)
        assert fault.example in expected
        x[loud] /= 100


def test_extreme_values_are_no_fault(tmp_path: Path) -> None:
    path = write(tmp_path / "m.onnx")
    for factor in (1e4, 1e38, np.inf, np.nan, 1e-40, 0.0):
        with np.errstate(all="ignore"):
            assert located(path, (X * factor).astype(np.float32)).fault is None, factor


def test_weights_may_lie_beside_the_file(tmp_path: Path) -> None:
    proto = onnx.load(write(tmp_path / "m.onnx"))
    onnx.save(proto, tmp_path / "m.onnx", save_as_external_data=True, location="m.data", size_threshold=0)
    assert (tmp_path / "m.data").is_file()
    assert located(tmp_path / "m.onnx", X).fault is None


def test_files_from_before_there_were_offsets_are_read(tmp_path: Path) -> None:
    old = [tuple(kind)[:4] for kind in PROVENANCE.kinds]
    assert len(old[0]) == 4
    assert located(write(tmp_path / "m.onnx", kinds=old), X).fault is None


DAMAGED = [
    {"neurons": (0,) * 4}, {"neurons": (0, 1, 2)}, {"neurons": (1, 2, 3, 4)}, {"kind": (99,) * 4}, {"kinds": ()},
    {"kind": (0,) * 3, "neurons": (0, 1, 2)}, {"h": "y"}, {"kinds": (("relu", "a", 1, 0),) * 2},
]  # fmt: skip


@pytest.mark.parametrize("provenance", DAMAGED)
def test_damaged_metadata_are_told(provenance: dict[str, Any], tmp_path: Path) -> None:
    path = write(tmp_path / "m.onnx", **provenance)
    with pytest.raises(
        InputError, match=r"m\.onnx: the (model's smx metadata is damaged|metadata of 'act' do not fit its graph) \("
    ):
        located(path, X)


def test_files_whose_layers_are_not_known(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"m\.onnx has no value 'absent'"):
        located(write(tmp_path / "m.onnx", z="absent"), X)
    proto = onnx.load(write(tmp_path / "m.onnx"))
    entries = {entry.key: entry.value for entry in proto.metadata_props}
    layers = [{**layer, "provenance": None} for layer in json.loads(entries["smx.layers"])]
    for others in ({}, {**entries, "smx.layers": json.dumps(layers)}):
        proto.ClearField("metadata_props")
        onnx.helper.set_model_props(proto, others)
        onnx.save(proto, tmp_path / "m.onnx")
        with pytest.raises(InputError, match=r"m\.onnx does not say where its layers are; export it again with this"):
            located(tmp_path / "m.onnx", X)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda run: Values([LayerArrays("act", run.layers[0].z[:, :3], run.layers[0].h)], run.outputs),
         r"act has the shape \(5, 4\) in .*m\.onnx, \(5, 3\) in the reference"),
        (lambda run: Values(run.layers, [run.outputs[0][:, :1]]),
         r"the output has the shape \(5, 2\) in .*m\.onnx, \(5, 1\) in the reference"),
        (lambda run: Values([], run.outputs),
         r"1 calls of mixed layers and 1 outputs in .*m\.onnx, 0 calls of mixed layers and 1 outputs in the reference"),
        (lambda run: Values(run.layers, run.outputs * 2), "1 calls of mixed layers and 2 outputs in the reference"),
    ],
)  # fmt: skip
def test_another_network_is_told(change: Callable[[Values], Values], message: str, tmp_path: Path) -> None:
    def other(x: Array, *, given: Sequence[LayerArrays]) -> Values:
        return change(network()(x, given=given))

    with pytest.raises(InputError, match=f"is it the same network\\? .*{message}"):
        locate(write(tmp_path / "m.onnx"), other, other, X)


@pytest.mark.parametrize(
    ("inputs", "options", "message"),
    [
        ([], {}, r"m\.onnx needs at least one example, and as many of each input"),
        ([X[:0]], {}, "needs at least one example"),
        ([X, X[1:]], {}, "as many of each input"),
        ([X, X], {}, r"m\.onnx expects 1 inputs, got 2"),
        ([X[:, 1:]], {}, r"m\.onnx expects an input of shape"),
        ([X], {"provider": "gpu"}, "unknown provider 'gpu'"),
    ],
)
def test_inputs_that_do_not_fit_are_told(
    inputs: list[Array], options: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=message):
        located(write(tmp_path / "m.onnx"), *inputs, **options)
