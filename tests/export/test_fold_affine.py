"""FoldAffine on small graphs: where it must fire, where it must not, and the answers of the graph as it was."""

from __future__ import annotations

import numpy as np
import pytest

from smx.export.passes import FoldAffine
from tests.export.graphs import graph, normal, operators, random_weights, run

NORM = random_weights(
    w=(6, 3, 1, 1), b=(6,), gamma=(6,), beta=(6,), mean=(6,), variance=(6,), v=(2, 6, 3, 3), c=(2,), s=(6, 1, 1), two=()
)


@pytest.mark.parametrize(
    "body",
    [
        "z = Conv(x, w, b) n = BatchNormalization(z, gamma, beta, mean, variance) r = Relu(n) y = Conv(r, v, c)",
        "z = Conv(x, w) n = BatchNormalization(z, gamma, beta, mean, variance) r = Relu(n) y = Conv(r, v)",
        "z = Conv(x, w, b) r = Relu(z) n = BatchNormalization(r, gamma, beta, mean, variance) y = Conv(n, v, c)",
        "z = Conv(x, w, b) r = Relu(z) n = BatchNormalization(r, gamma, beta, mean, variance)"
        " p = MaxPool <kernel_shape = [1, 1]> (n) y = Conv(p, v)",
        "z = Conv(x, w, b) m = Mul(z, s) r = Relu(m) y = Conv(r, v, c)",
        "z = Conv(x, w, b) r = Relu(z) m = Div(r, s) y = Conv <pads = [1, 1, 1, 1]> (m, v, c)",
        "z = Conv(x, w, b) m = Sub(z, s) r = Relu(m) y = Conv(r, v, c)",
    ],
)
def test_fold_affine_fires(body: str) -> None:
    size = 5 if "pads" in body else 3
    outputs = f"float[batch,2,{size},{size}] y"
    before = graph(body, "float[batch,3,5,5] x", outputs, NORM)
    model = graph(body, "float[batch,3,5,5] x", outputs, NORM)
    assert FoldAffine()(model).modified
    assert not {"BatchNormalization", "Mul", "Div", "Sub"} & set(operators(model))
    x = normal(2, 3, 5, 5)
    np.testing.assert_allclose(run(model, x=x), run(before, x=x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (
            "z = Conv(x, w, b) r = Relu(z) n = BatchNormalization(r, gamma, beta, mean, variance)"
            " y = Conv <pads = [1, 1, 1, 1]> (n, v, c)",
            "pads with zeros",
        ),
        (
            "z = Conv(x, w, b) n = BatchNormalization(z, gamma, beta, mean, variance) t = Tanh(n) y = Mul(t, z)",
            "what comes before it is used elsewhere, too",
        ),
        (
            "z = Conv(x, w, b) r = Relu(z) n = BatchNormalization(r, gamma, beta, mean, variance) y = Add(n, r)",
            "the Add after it needs the values as they are",
        ),
    ],
)
def test_fold_affine_does_not_fire(body: str, reason: str) -> None:
    channels = 2 if "pads" in body else 6
    model = graph(body, "float[batch,3,5,5] x", f"float[batch,{channels},5,5] y", NORM)
    before = {name: value.const_value for name, value in model.graph.initializers.items()}
    fold = FoldAffine()
    assert not fold(model).modified
    assert [reason in why for why in fold.refusals.values()] == [True]
    assert {name: value.const_value for name, value in model.graph.initializers.items()} == before


def test_fold_affine_leaves_the_weights_of_others() -> None:
    """Two Convs share their weights; only one of them is followed by BatchNorm."""
    body = (
        "z = Conv(x, w, b) n = BatchNormalization(z, gamma, beta, mean, variance) r = Relu(n)"
        " u = Conv(x, w, b) q = Tanh(u) y = Add(r, q)"
    )
    model = graph(body, "float[batch,3,5,5] x", "float[batch,6,5,5] y", NORM)
    assert FoldAffine()(model).modified
    x = normal(2, 3, 5, 5)
    expected = run(graph(body, "float[batch,3,5,5] x", "float[batch,6,5,5] y", NORM), x=x)
    np.testing.assert_allclose(run(model, x=x), expected, rtol=1e-5, atol=1e-5)


def test_fold_affine_through_flatten_and_into_an_output() -> None:
    weights = random_weights(s=(4, 1, 1), t=(4, 1, 1), w=(5, 36), b=(5,), o=(5,))
    body = (
        "m = Mul(x, s) n = Add(m, t) shape = Constant <value_ints = [0, 36]> () f = Reshape(n, shape)"
        " g = Gemm <transB = 1> (f, w, b) y = Mul(g, o)"
    )
    model = graph(body, "float[batch,4,3,3] x", "float[batch,5] y", weights)
    fold = FoldAffine()
    assert fold(model).modified
    assert fold.applied == 3
    assert operators(model) == ["Constant", "Reshape", "Gemm"]
    assert model.graph.outputs[0].name == "y"
    x = normal(2, 4, 3, 3)
    expected = run(graph(body, "float[batch,4,3,3] x", "float[batch,5] y", weights), x=x)
    np.testing.assert_allclose(run(model, x=x), expected, rtol=1e-5, atol=1e-5)


def test_fold_affine_takes_the_bias_of_a_linear_layer_for_what_it_is() -> None:
    weights = random_weights(w=(4, 4), b=(4,))
    model = graph("m = MatMul(x, w) n = Add(m, b) y = Tanh(n)", weights=weights)
    fold = FoldAffine()
    assert not fold(model).modified
    assert not fold.refusals


FOUR = random_weights(w=(4, 4), b=(4,), s=(4,), two=()).replace(">", ", float none = {0.0}>")


def folded(body: str, inputs: str, outputs: str, weights: str, **options: bool) -> tuple[FoldAffine, list[str]]:
    """Fold, hold the answers against those of the graph as it was, and return the pass and the operators."""
    model, fold = graph(body, inputs, outputs, weights), FoldAffine(**options)
    assert fold(model).modified == bool(fold.applied)
    sizes = [int(size) for size in inputs.partition("[batch,")[2].partition("]")[0].split(",")]
    x = normal(3, *sizes)
    expected = run(graph(body, inputs, outputs, weights), x=x)
    np.testing.assert_allclose(run(model, x=x), expected, rtol=2e-5, atol=2e-5)
    return fold, operators(model)


@pytest.mark.parametrize(
    ("body", "left"),
    [
        ("z = Gemm <transB = 1> (x, w, b) y = Mul(z, s)", []),
        ("z = Gemm <transB = 1> (x, w, b) y = Mul(s, z)", []),
        ("z = Gemm <transB = 1> (x, w, b) y = Add(s, z)", []),
        ("z = Gemm <transB = 1> (x, w, b) y = Div(z, s)", []),
        ("z = Gemm <transB = 1> (x, w, b) y = Sub(z, s)", []),
        ("z = Gemm <transB = 1> (x, w, b) y = Div(s, z)", ["Div"]),
        ("z = Gemm <transB = 1> (x, w, b) y = Sub(s, z)", ["Sub"]),
        ("z = Gemm <transB = 1> (x, w, b) y = Mul(z, two)", []),
        ("z = Gemm <transB = 1> (x, w, b) y = Pow(z, two)", ["Pow"]),
        ("z = Gemm <transB = 1> (x, w, b) y = Mul(z, none)", ["Mul"]),
        ("z = Gemm <transB = 1> (x, w, b) y = Add(z, none)", []),
        ("m = Mul(x, s) y = Gemm <transB = 1> (m, w, b)", []),
        ("m = Sub(x, s) y = Gemm (m, w, b)", []),
        ("z = Gemm <transB = 1> (x, w) n = BatchNormalization <epsilon = 0.5> (z, s, b, b, s) y = Tanh(n)", ["Tanh"]),
    ],
)
def test_fold_affine_reads_each_operator(body: str, left: list[str]) -> None:
    fold, found = folded(body, "float[batch,4] x", "float[batch,4] y", FOUR)
    assert [name for name in found if name != "Gemm"] == left
    assert fold.applied == (not left or left == ["Tanh"])


@pytest.mark.parametrize(
    ("body", "inputs", "outputs"),
    [
        ("z = Conv(x, w, b) y = Mul(z, two)", "float[batch,3,4,4] x", "float[batch,6,4,4] y"),
        ("z = Conv(x, w, b) y = Add(z, two)", "float[batch,3,4,6] x", "float[batch,6,4,6] y"),
        (
            "r = Relu(x) m = Mul(r, s) y = Conv <pads = [1, 1, 1, 1]> (m, v, c)",
            "float[batch,6,4,4] x",
            "float[batch,2,4,4] y",
        ),
    ],
)
def test_fold_affine_finds_the_channels_of_a_conv(body: str, inputs: str, outputs: str) -> None:
    constant = "" * ("two" in body)
    fold, found = folded(constant + body, inputs, outputs, NORM)
    assert fold.applied == 1
    assert not {"Mul", "Add"} & set(found)


@pytest.mark.parametrize(
    ("body", "inputs"),
    [
        ("g = Gemm(x, w, b) y = Mul(g, s)", "float[batch,4] x"),  # s makes its input larger
        ("z = Gemm <transB = 1> (x, w, b) y = Mul(z, z)", "float[batch,4] x"),  # no constant
    ],
)
def test_fold_affine_leaves_what_is_no_map_of_channels(body: str, inputs: str) -> None:
    larger = "g" in body.split()[0]
    weights = random_weights(w=(4, 1), b=(1,), s=(4,)) if larger else FOUR
    fold, found = folded(body, inputs, "float[batch,4] y", weights)
    assert found == ["Gemm", "Mul"]
    assert not fold.applied
    assert not fold.refusals


def test_fold_affine_without_shifts_keeps_them_behind_an_activation() -> None:
    body = "r = Relu(x) n = Add(r, s) y = Gemm <transB = 1> (n, w, b)"
    fold, found = folded(body, "float[batch,4] x", "float[batch,4] y", FOUR, shifts=False)
    assert found == ["Relu", "Add", "Gemm"]
    (reason,) = fold.refusals.values()
    assert (
        reason == "the Relu before it can't take it up, and shifts don't move into what comes after them, for precision"
    )
    for other, options in ((body, {}), (body.replace("Add", "Mul"), {"shifts": False})):
        fold, found = folded(other, "float[batch,4] x", "float[batch,4] y", FOUR, **options)
        assert found == ["Relu", "Gemm"]
        assert not fold.refusals


def test_fold_affine_does_not_speak_of_single_numbers() -> None:
    """A factor for all channels is part of many formulas, such as GELU's."""
    body = "r = Relu(x) m = Mul(r, two) y = Tanh(m)"
    fold, _ = folded(body, "float[batch,4] x", "float[batch,4] y", FOUR)
    assert (fold.applied, fold.refusals) == (0, {})
