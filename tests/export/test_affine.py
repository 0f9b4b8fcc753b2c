"""Maps that move into weights: through each operator that carries them, and stopped by each that does not.

A weight's name says its shape: `w_6_4_1_1` is (6, 4, 1, 1), `w_` is a scalar. Weights have both signs, and double
precision, so that every difference is a mistake.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from numpy.typing import NDArray

from smx.export.affine import Affine, RefusedError, into_consumers, into_producer
from smx.export.passes import FoldAffine
from tests.export.graphs import inputs, net, run, signed, sizes

Array = NDArray[np.float64]
MAPS = ("signed", "factor", "positive", "shift")
AS_THEY_ARE = "after it needs the values as they are"
SHAPE = "Constant <value_ints = [{}]> ()"
NO_AXES = "Constant <value = int64[0] {}> ()"
UNKNOWN = "c = Greater(a_4, b_4) t = Compress <axis = 1> (x, c)"
MEAN = "ReduceMean <keepdims = 0> (h, a)"
WINDOW = "kernel_shape = [3, 3]"
AROUND = f"{WINDOW}, pads = [1, 1, 1, 1]"
SAME = f'{WINDOW}, auto_pad = "SAME_UPPER"'
CEIL = "kernel_shape = [2, 2], strides = [2, 2], ceil_mode = 1"
CONV = "y = Conv(z, w_3_4_1_1)"
NORM = f"the BatchNorm.* {AS_THEY_ARE}"


def affine(kind: str, channels: int) -> Affine:
    scale, shift = signed("scale", channels), signed("shift", channels)
    scale[::2], scale[1::2] = -np.abs(scale[::2]), np.abs(scale[1::2])
    return {
        "signed": Affine(scale, shift),
        "factor": Affine(scale, np.zeros(channels)),
        "positive": Affine(np.abs(scale), shift),
        "shift": Affine(np.ones(channels), shift),
    }[kind]


def along(values: Array, axis: int, rank: int) -> Array:
    return values.reshape([-1 if i == axis else 1 for i in range(rank)])


def same(got: Array, expected: Array) -> None:
    assert np.abs(expected).max() > 1e-3
    np.testing.assert_allclose(got, expected, rtol=1e-9, atol=1e-9)


def values(model: ir.Model) -> list[ir.Value]:
    return [value for node in model.graph for value in node.outputs]


# --- into_consumers

BEHIND = [  # the shape of h, its axis, what uses h, and which maps it takes
    ("batch,4", 1, "y = Gemm(h, w_4_3, c_3)", MAPS),
    ("batch,4", 1, "y = Gemm <transB = 1> (h, w_3_4, c_1_3)", MAPS),
    ("batch,4", 1, "y = Gemm <transB = 1, alpha = 1.0, beta = 1.0> (h, w_3_4)", MAPS),
    ("batch,4", 1, "y = Gemm(h, w_4_4)", MAPS),
    ("batch,4", 1, "y = Gemm(h, w_4_1, c_)", MAPS),
    ("batch,4", 1, "y = Gemm(h, w_4_2, c_2_1)", ("factor",)),
    ("batch,4", 1, "b = Gemm(x, v_4_2) y = Gemm(h, w_4_2, b)", ("factor",)),
    ("batch,4", 1, "a = Gemm(h, w_4_4, c_4) b = Gemm(h, w_4_4, c_4) d = Gemm(x, w_4_4, c_4) y = Sum(a, b, d)", MAPS),
    ("batch,3,4", 2, "y = MatMul(h, w_4_5)", ("factor",)),
    ("batch,3,4", 2, "z = MatMul(h, w_4_5) y = Add(z, c_5)", MAPS),
    ("batch,3,4", 2, "z = MatMul(h, w_4_5) y = Add(c_1_5, z)", MAPS),
    ("batch,4,5,5", 1, "y = Conv(h, w_3_4_3_3, c_3)", MAPS),
    ("batch,4,5,5", 1, 'y = Conv <pads = [0, 0, 0, 0], strides = [2, 2], auto_pad = "NOTSET"> (h, w_3_4_3_3)', MAPS),
    ("batch,4,5,5", 1, 'y = Conv <auto_pad = "VALID", dilations = [2, 2]> (h, w_3_4_3_3)', MAPS),
    ("batch,4,5,5", 1, "y = Conv <pads = [1, 0, 1, 2]> (h, w_3_4_3_3, c_3)", ("factor",)),
    ("batch,4,5,5", 1, 'y = Conv <auto_pad = "SAME_LOWER"> (h, w_3_4_3_3, c_3)', ("factor",)),
    ("batch,6,5,5", 1, "y = Conv <group = 3> (h, w_9_2_3_3, c_9)", MAPS),
    ("batch,6,5,5", 1, "y = Conv <group = 2> (h, w_2_3_1_1)", MAPS),
    ("batch,4,5", 1, "y = Conv <group = 4> (h, w_8_1_3)", MAPS),
    ("batch,4,3,3", 1, "y = BatchNormalization(h, g_4, b_4, m_4, var_4)", MAPS),
    ("batch,4,3,3", 1, "y = BatchNormalization(h, g_4, g_4, g_4, var_4)", MAPS),
    ("batch,4", 1, "z = Dropout(h) i = Identity(z) y = Gemm(i, w_4_3)", MAPS),
    ("batch,4,5,5", 1, "z = GlobalAveragePool(h) f = Flatten(z) y = Gemm(f, w_4_3, c_3)", MAPS),
    ("batch,4,5,5", 1, "z = AveragePool <kernel_shape = [2, 3]> (h) y = Conv(z, w_3_4_1_1)", MAPS),
    ("batch,4,5,5", 1, "z = AveragePool <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (h) y = Conv(z, w_3_4_1_1)", MAPS),
    ("batch,4,5,5", 1, f"z = AveragePool <{AROUND}, count_include_pad = 1> (h) {CONV}", ("factor",)),
    ("batch,4,5,5", 1, f'z = AveragePool <{WINDOW}, auto_pad = "VALID", count_include_pad = 1> (h) {CONV}', MAPS),
    ("batch,4,5,5", 1, "z = MaxPool <kernel_shape = [2, 3]> (h) y = Conv(z, w_3_4_1_1)", ("positive", "shift")),
    ("batch,4,5,5", 1, f"z = MaxPool <{AROUND}, strides = [2, 2]> (h) {CONV}", ("positive", "shift")),
    ("batch,4,5,5", 1, "z = GlobalMaxPool(h) y = Conv(z, w_3_4_1_1)", ("positive", "shift")),
    ("batch,4,3,2", 1, f"a = {SHAPE.format('2, -1')} z = ReduceMean <keepdims = 1> (h, a) {CONV}", MAPS),
    ("batch,3,4", 2, f"a = {SHAPE.format('1')} z = ReduceMean <keepdims = 0> (h, a) y = Gemm(z, w_4_3)", MAPS),
    ("batch,3,4", 2, f"a = {SHAPE.format('1')} z = ReduceMean(h, a) m = MatMul(z, w_4_3) y = Add(m, c_3)", MAPS),
    ("batch,4,3", 1, f"a = {SHAPE.format('-1')} z = ReduceMean <keepdims = 0> (h, a) y = Gemm(z, w_4_3)", MAPS),
    ("batch,4,3,2", 1, "z = Transpose <perm = [0, 2, 3, 1]> (h) m = MatMul(z, w_4_3) y = Add(m, c_3)", MAPS),
    ("3,batch,4,2", 2, "z = Transpose <perm = [1, 2, 0, 3]> (h) y = Conv(z, w_3_4_1_1)", MAPS),
    ("4,batch", 0, "z = Transpose(h) y = Gemm(z, w_4_3)", MAPS),
    ("batch,4,3,2", 1, "f = Flatten(h) y = Gemm(f, w_24_3, c_3)", MAPS),
    ("batch,4,3,2", 1, f"s = {SHAPE.format('0, 12, 2')} z = Reshape(h, s) y = Conv(z, w_3_12_1)", MAPS),
    ("batch,3,4", 2, f"s = {SHAPE.format('-1, 4')} z = Reshape(h, s) y = Gemm(z, w_4_3)", MAPS),
    ("batch,4,1,1", 1, f"a = {SHAPE.format('2, 3')} z = Squeeze(h, a) y = Gemm(z, w_4_3)", MAPS),
    ("batch,4", 1, f"a = {SHAPE.format('2')} z = Unsqueeze(h, a) y = Conv(z, w_3_4_1)", MAPS),
    ("batch,4", 1, "z = Concat <axis = 1> (h, x) y = Gemm(z, w_8_3)", MAPS),
    ("batch,4", 1, "z = Concat <axis = -1> (x, h, x) y = Gemm(z, w_12_3, c_3)", MAPS),
    ("batch,4,3,3", 1, "z = Concat <axis = 1> (x, h) y = Conv <group = 4> (z, w_4_2_3_3)", MAPS),
    ("batch,4", 1, "i = Identity(h) z = Concat <axis = 1> (i, x, h) y = Gemm(z, w_12_3)", MAPS),
]


@pytest.mark.parametrize(("h", "axis", "body", "kind"), [(*case, kind) for *case, kinds in BEHIND for kind in kinds])
def test_what_follows_takes_a_map(h: str, axis: int, body: str, kind: str) -> None:
    before, after, fed = net(body, h), net(body, h), inputs(h)
    known = affine(kind, sizes(h)[axis])
    for change in into_consumers(after.graph, after.graph.inputs[0], axis, known):
        change()
    rank = len(sizes(h))
    moved = (fed["h"] - along(known.shift, axis, rank)) / along(known.scale, axis, rank)
    same(run(after, h=moved, x=fed["x"]), run(before, **fed))


NOT_BEHIND = [  # the shape of h, its axis, what uses h, a map, and why it is refused
    ("batch,4", 1, "y = Identity(h)", "factor", "it is an output of the model"),
    ("batch,4", 1, "y = Tanh(h)", "factor", f"the Tanh {AS_THEY_ARE}"),
    ("batch,4", 1, "z = Gemm(h, w_4_4) t = Tanh(h) y = Add(z, t)", "factor", f"the Tanh {AS_THEY_ARE}"),
    ("batch,4", 1, "y = Gemm(x, w_4_4, h)", "factor", f"the Gemm {AS_THEY_ARE}"),
    ("batch,4", 1, "y = Gemm(h, w_4_4, h)", "factor", f"the Gemm {AS_THEY_ARE}"),
    ("4,4", 1, "y = MatMul(x, h)", "factor", f"the MatMul {AS_THEY_ARE}"),
    ("4,4", 1, "y = Gemm <transA = 1> (h, w_4_3)", "factor", f"the Gemm {AS_THEY_ARE}"),
    ("batch,4", 1, "y = Gemm <alpha = 0.5> (h, w_4_3, c_3)", "signed", f"the Gemm {AS_THEY_ARE}"),
    ("batch,4", 1, "y = Gemm <beta = 0.5> (h, w_4_3, c_3)", "signed", f"the Gemm {AS_THEY_ARE}"),
    ("4,4", 0, "y = Gemm(h, w_4_3)", "factor", f"the Gemm {AS_THEY_ARE}"),
    ("4,4", 1, "y = Gemm(h, x)", "factor", f"the Gemm {AS_THEY_ARE}"),
    ("2,4", 1, "y = Gemm(h, w_4_2, c_2_1)", "shift", "the bias of the Gemm is not one constant for each channel"),
    ("2,4", 1, "y = Gemm(h, w_4_2, c_2_2)", "shift", "the bias of the Gemm is not one constant for each channel"),
    ("batch,4", 1, "y = Gemm(h, w_4_2, c_)", "shift", "the bias of the Gemm is not one constant for each channel"),
    ("batch,4", 1, "y = Gemm(h, w_4_2, c_1)", "shift", "the bias of the Gemm is not one constant for each channel"),
    ("batch,4", 1, "y = Gemm(h, w_4_4, x)", "shift", "the bias of the Gemm is not one constant for each channel"),
    ("batch,4", 1, "c = Abs(c_4) y = Gemm(h, w_4_4, c)", "shift", "the bias of the Gemm is not one constant"),
    ("5,4", 1, "z = MatMul(h, w_4_5) y = Add(z, c_1_5_1)", "shift", "no bias to take the shift"),
    ("batch,3,4", 2, "y = MatMul(h, w_4_5)", "shift", "the MatMul after it has no bias to take the shift"),
    ("batch,3,4", 2, "z = MatMul(h, w_4_4) y = Mul(z, c_4)", "shift", "no bias to take the shift"),
    ("batch,3,4", 2, "z = MatMul(h, w_4_4) y = Add(z, x)", "shift", "no bias to take the shift"),
    ("batch,3,4", 2, "z = MatMul(h, w_4_5) y = Add(z, c_3_1)", "shift", "no bias to take the shift"),
    ("batch,3,4", 2, "z = MatMul(h, w_4_5) a = Add(z, c_5) y = Sub(a, z)", "shift", "no bias to take the shift"),
    ("batch,3,4", 1, "y = MatMul(h, w_4_5)", "factor", f"the MatMul {AS_THEY_ARE}"),
    ("batch,3,4", 2, "y = MatMul(h, w_2_4_5)", "factor", f"the MatMul {AS_THEY_ARE}"),
    ("batch,4,5,5", 2, "y = Conv(h, w_3_4_3_3)", "factor", f"the Conv {AS_THEY_ARE}"),
    ("4,4,5,5", 1, "y = Conv(h, x)", "factor", f"the Conv {AS_THEY_ARE}"),
    ("batch,4,5,5", 1, "y = Conv <pads = [0, 0, 0, 1]> (h, w_3_4_3_3)", "shift", "pads with zeros"),
    ("batch,4,5,5", 1, 'y = Conv <auto_pad = "SAME_UPPER"> (h, w_3_4_3_3)', "shift", "pads with zeros"),
    ("batch,4,3,3", 2, "y = BatchNormalization(h, g_4, b_4, m_4, var_4)", "factor", NORM),
    ("4", 0, "y = BatchNormalization(h, g_1, b_1, m_1, var_1)", "factor", NORM),
    ("batch,4,3,3", 1, "y, a, b = BatchNormalization <training_mode = 1> (h, g_4, b_4, m_4, var_4)", "factor", NORM),
    ("batch,4", 1, "g = Abs(g_4) y = BatchNormalization(h, g, b_4, m_4, var_4)", "factor", NORM),
    ("batch,4,5,5", 1, f"z = AveragePool <{AROUND}, count_include_pad = 1> (h) {CONV}", "shift", "the AveragePool"),
    ("batch,4,5,5", 1, f"z = AveragePool <{SAME}, count_include_pad = 1> (h) {CONV}", "shift", "the AveragePool"),
    ("batch,4,5,5", 1, f"z = AveragePool <{CEIL}> (h) {CONV}", "shift", f"the AveragePool {AS_THEY_ARE}"),
    ("batch,4,5,5", 1, f"z = MaxPool <kernel_shape = [2, 2]> (h) {CONV}", "signed", f"the MaxPool {AS_THEY_ARE}"),
    ("batch,4,5,5", 1, "z, i = MaxPool <kernel_shape = [2, 2]> (h) y = Conv(z, w_3_4_1_1)", "positive", "the MaxPool"),
    ("batch,4,5,5", 1, "z = GlobalMaxPool(h) y = Conv(z, w_3_4_1_1)", "factor", f"the GlobalMaxPool {AS_THEY_ARE}"),
    ("batch,4,4", 1, f"a = {SHAPE.format('-2')} z = {MEAN} y = Gemm(z, w_4_3)", "factor", f"ReduceMean {AS_THEY_ARE}"),
    ("batch,4", 1, f"a = {SHAPE.format('1')} z = ReduceMean(h, a) y = MatMul(z, w_1_3)", "factor", "the ReduceMean"),
    ("batch,4", 1, "z = ReduceMean <keepdims = 1> (h) y = MatMul(z, w_1_3)", "factor", "the ReduceMean"),
    ("batch,4", 1, f"a = {NO_AXES} z = ReduceMean(h, a) y = MatMul(z, w_1_3)", "factor", "the ReduceMean"),
    ("batch,4,3", 1, f"s = {SHAPE.format('0, 6, 2')} z = Reshape(h, s) y = Conv(z, w_3_6_1)", "factor", "axis whole"),
    ("batch,4", 1, f"s = {SHAPE.format('0, 2, 2')} z = Reshape(h, s) y = Conv(z, w_3_2_1)", "factor", "axis whole"),
    ("2,2,3", 1, f"s = {SHAPE.format('3, 2, 2')} z = Reshape(h, s) y = Conv(z, w_3_2_1)", "factor", "axis whole"),
    ("batch,4", 1, f"s = {SHAPE.format('-1')} z = Reshape(h, s) y = Mul(z, k_)", "factor", "axis whole"),
    ("batch,4", 1, "z = Concat <axis = 1> (h, h) y = Gemm(z, w_8_3)", "factor", "the Concat after it"),
    ("4,4", 1, "z = Concat <axis = 0> (x, h) y = Gemm(z, w_4_3)", "factor", f"the Concat {AS_THEY_ARE}"),
    ("batch,4", 1, f"{UNKNOWN} z = Concat <axis = 1> (h, t) y = Gemm(z, w_8_3)", "factor", "inputs of unknown size"),
]


def state(model: ir.Model) -> tuple[object, object]:
    """Return what the nodes read, and the initializers: a changed one is another tensor."""
    initializers = {name: id(value.const_value) for name, value in model.graph.initializers.items()}
    return [(node.op_type, node.inputs) for node in model.graph], initializers


def refuses(model: ir.Model, name: str, axis: int, known: Affine, reason: str, *, before: bool = False) -> None:
    """Assert that a map is refused for a reason, and that nothing was changed."""
    value = next(value for value in (*model.graph.inputs, *values(model)) if value.name == name)
    old = state(model)
    with pytest.raises(RefusedError, match=reason):
        (into_producer if before else into_consumers)(model.graph, value, axis, known)
    assert state(model) == old


@pytest.mark.parametrize(("h", "axis", "body", "kind", "reason"), NOT_BEHIND)
def test_what_follows_refuses_a_map(h: str, axis: int, body: str, kind: str, reason: str) -> None:
    refuses(net(body, h), "h", axis, affine(kind, sizes(h)[axis]), reason)


@pytest.mark.parametrize(
    ("body", "output", "kind", "reason"),
    [
        ("z = Identity(h) y = Gemm(z, w_4_3)", "z", "factor", "it is an output of the model"),
        ("z = MatMul(h, w_4_3) y = Add(z, c_3)", "z", "shift", "no bias to take the shift"),
    ],
)
def test_an_output_stays_as_it_is(body: str, output: str, kind: str, reason: str) -> None:
    refuses(net(body, "batch,4", f"double[] y, double[] {output}"), "h", 1, affine(kind, 4), reason)


@pytest.mark.parametrize("outside", ["y = Sum(f, x)", "z = Gemm(h, w_4_4) y = Sum(f, z)"])
def test_a_branch_refuses_a_map(outside: str) -> None:
    body = (
        "c = Constant <value = bool {1}> () f = If (c) <then_branch = a () => (double[] t) {t = Gemm(h, w_4_4)},"
        f" else_branch = b () => (double[] e) {{e = Gemm(h, v_4_4)}}> {outside}"
    )
    refuses(net(body, "batch,4"), "h", 1, affine("signed", 4), "a branch or a loop uses it")


# --- into_producer

BEFORE = [  # the shape of h, the axis of z, what computes z, and which maps it takes
    ("batch,4", 1, "z = Gemm(h, w_4_3, c_3)", MAPS),
    ("batch,4", 1, "z = Gemm(h, w_4_3)", MAPS),
    ("batch,4", 1, "z = Gemm <transB = 1> (h, w_3_4, c_1_3)", MAPS),
    ("batch,4", 1, "z = Gemm <transB = 1, alpha = 1.0, beta = 1.0> (h, w_3_4)", MAPS),
    ("batch,4", 1, "z = Gemm(h, w_4_1, c_)", MAPS),
    ("batch,3,4", 2, "z = MatMul(h, w_4_5)", ("factor",)),
    ("batch,3,4", 2, "m = MatMul(h, w_4_5) z = Add(m, c_5)", MAPS),
    ("batch,3,4", 2, "m = MatMul(h, w_4_5) z = Add(c_1_1_5, m)", MAPS),
    ("batch,3,4", 2, "t = Tanh(h) z = Add(t, c_4)", ("shift",)),
    ("batch,4,5,5", 1, "z = Conv(h, w_3_4_3_3, c_3)", MAPS),
    ("batch,4,5,5", 1, "z = Conv <group = 2, pads = [1, 1, 1, 1]> (h, w_6_2_3_3)", MAPS),
    ("batch,4,5,5", 1, "m = Conv(h, w_3_4_1_1) z = Add(m, c_3_1_1)", MAPS),
    ("batch,4,5,5", 1, "z = BatchNormalization(h, g_4, b_4, m_4, var_4)", MAPS),
    ("batch,4,5,5", 1, "z = BatchNormalization(h, g_4, g_4, g_4, var_4)", MAPS),
]


@pytest.mark.parametrize(("h", "axis", "body", "kind"), [(*case, kind) for *case, kinds in BEFORE for kind in kinds])
def test_what_comes_before_takes_a_map(h: str, axis: int, body: str, kind: str) -> None:
    before, after = (net(f"{body} y = Identity(z)", h) for _ in range(2))
    expected = run(before, **inputs(h))
    known = affine(kind, expected.shape[axis])
    (value,) = (value for value in values(after) if value.name == "z")
    for change in into_producer(after.graph, value, axis, known):
        change()
    rank = expected.ndim
    same(run(after, **inputs(h)), along(known.scale, axis, rank) * expected + along(known.shift, axis, rank))


CAN_NOT = "before it can't take it up"
NOT_BEFORE = [  # the shape of h, the axis of z, what computes and uses z, a map, and why it is refused
    ("batch,4", 1, "z = Gemm(h, w_4_4) t = Tanh(z) y = Add(z, t)", "factor", "is used elsewhere, too"),
    ("batch,4", 1, "z = Relu(h) y = Identity(z)", "factor", f"the Relu {CAN_NOT}"),
    ("4,4", 1, "z = Gemm <transA = 1> (h, w_4_3) y = Identity(z)", "factor", f"the Gemm {CAN_NOT}"),
    ("batch,4", 1, "z = Gemm <alpha = 0.5> (h, w_4_3, c_3) y = Identity(z)", "signed", f"the Gemm {CAN_NOT}"),
    ("batch,4", 1, "z = Gemm <beta = 0.5> (h, w_4_3, c_3) y = Identity(z)", "signed", f"the Gemm {CAN_NOT}"),
    ("4,4", 0, "z = Gemm(h, w_4_4, c_4) y = Identity(z)", "factor", f"the Gemm {CAN_NOT}"),
    ("4,4", 1, "z = Gemm(h, x) y = Identity(z)", "factor", f"the Gemm {CAN_NOT}"),
    ("3,4", 1, "z = Gemm(h, w_4_3, c_3_1) y = Identity(z)", "factor", "the bias of the Gemm is not one constant"),
    ("3,4", 1, "z = Gemm(h, w_4_3, c_3_3) y = Identity(z)", "factor", "the bias of the Gemm is not one constant"),
    ("batch,4", 1, "z = Gemm(h, w_4_3, c_) y = Identity(z)", "factor", "the bias of the Gemm is not one constant"),
    ("batch,4", 1, "z = Gemm(h, w_4_4, x) y = Identity(z)", "factor", "the bias of the Gemm is not one constant"),
    ("batch,4", 1, "c = Abs(c_4) z = Gemm(h, w_4_4, c) y = Identity(z)", "factor", "the bias of the Gemm is not one"),
    ("batch,3,4", 2, "z = MatMul(h, w_4_5) y = Identity(z)", "shift", f"the MatMul {CAN_NOT}"),
    ("3,3,4", 1, "z = MatMul(h, w_4_3) y = Identity(z)", "factor", f"the MatMul {CAN_NOT}"),
    ("3,3,4", 2, "z = MatMul(h, w_3_4_4) y = Identity(z)", "factor", f"the MatMul {CAN_NOT}"),
    ("4,4,5,5", 2, "z = Conv(h, w_4_4_2_2) y = Identity(z)", "factor", f"the Conv {CAN_NOT}"),
    ("4,4,5,5", 1, "z = Conv(h, x) y = Identity(z)", "factor", f"the Conv {CAN_NOT}"),
    ("batch,4", 1, "g = Abs(g_4) z = BatchNormalization(h, g, b_4, m_4, var_4) y = Identity(z)", "factor", CAN_NOT),
    ("batch,4", 1, "m = MatMul(h, w_4_4) z = Add(m, x) y = Identity(z)", "factor", f"the Add {CAN_NOT}"),
    ("batch,4", 1, "t = Tanh(h) z = Add(t, c_4) y = Identity(z)", "factor", f"the Tanh {CAN_NOT}"),
    ("batch,4", 1, "m = MatMul(h, w_4_4) t = Add(m, c_4) z = Add(m, d_4) y = Add(z, t)", "factor", "elsewhere"),
    ("batch,4", 1, "m = MatMul(h, w_4_1) z = Add(m, c_3) y = Identity(z)", "factor", "makes its input larger"),
]


@pytest.mark.parametrize(("h", "axis", "body", "kind", "reason"), NOT_BEFORE)
def test_what_comes_before_refuses_a_map(h: str, axis: int, body: str, kind: str, reason: str) -> None:
    model = net(body, h)
    (channels,) = {value.shape[axis] for value in values(model) if value.name == "z" and value.shape is not None}
    assert isinstance(channels, int)
    refuses(model, "z", axis, affine(kind, channels), reason, before=True)


def test_an_input_and_an_output_stay_as_they_are() -> None:
    refuses(net("y = Tanh(h)", "batch,4"), "h", 1, affine("factor", 4), "it is an input of the model", before=True)
    model = net("z = Gemm(h, w_4_4) y = Tanh(z)", "batch,4", "double[] y, double[] z")
    refuses(model, "z", 1, affine("factor", 4), "is used elsewhere, too", before=True)


# --- The passes


@pytest.mark.parametrize(
    ("h", "body"),
    [
        ("batch,1,3,3", "z = Conv(h, w_1_1_1_1, c_1) m = Mul(z, s_4_1_1) y = Conv(m, v_3_4_1_1)"),
        ("batch,1", "z = MatMul(h, w_1_1) m = Add(z, c_4) n = Mul(m, s_4) y = Gemm(n, v_4_3)"),
        ("batch,4", "m = Mul(h, s_4) z = MatMul(m, w_4_1) n = Add(z, c_3) y = Gemm(n, v_3_2)"),
        ("batch,4", "a = Add(h, s_4) z = MatMul(a, w_4_1) n = Add(z, c_3) y = Gemm(n, v_3_2)"),
        ("3,4", "z = Gemm(h, w_4_3, c_3_1) y = Mul(z, s_3)"),
        ("3,4", "z = Add(h, s_4) y = Gemm(z, w_4_3, c_3_1)"),
        ("3,4,4", "m = Mul(h, s_4_1) n = Add(m, t_3_1_1) z = MatMul(n, w_4_3) y = Sub(k_, z)"),
    ],
)
def test_fold_affine_is_right_wherever_it_fires(h: str, body: str) -> None:
    before, after = net(body, h), net(body, h)
    FoldAffine()(after)
    same(run(after, **inputs(h)), run(before, **inputs(h)))
