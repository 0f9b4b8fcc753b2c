"""FoldAffine on small graphs: where it must fire, where it must not, and the answers of the graph as it was.

`test_affine.py` tries every operator that a map moves through or into.
"""

from __future__ import annotations

import numpy as np
import pytest

from smx.export.passes import FoldAffine
from tests.export.graphs import graph, normal, operators, random_weights, run

CONV = random_weights(
    w=(6, 3, 1, 1), b=(6,), gamma=(6,), beta=(6,), mean=(6,), variance=(6,), v=(2, 6, 3, 3), c=(2,), s=(6, 1, 1), two=()
)
FOUR = random_weights(w=(4, 4), b=(4,), s=(4,), two=()).replace(">", ", float none = {0.0}>")
NORM = "BatchNormalization(z, gamma, beta, mean, variance)"


def folded(
    body: str, x: str = "4", y: str = "4", weights: str = FOUR, *, shifts: bool = True
) -> tuple[FoldAffine, list[str]]:
    """Fold, hold the answers against those of the graph as it was, and return the pass and the operators."""
    before, model = (graph(body, f"float[batch,{x}] x", f"float[batch,{y}] y", weights) for _ in range(2))
    weights_before = {name: value.const_value for name, value in model.graph.initializers.items()}
    fold, noise = FoldAffine(shifts=shifts), normal(3, *map(int, x.split(",")))
    assert fold(model).modified == bool(fold.applied)
    weights_after = {name: value.const_value for name, value in model.graph.initializers.items()}
    assert fold.applied or weights_after == weights_before
    np.testing.assert_allclose(run(model, x=noise), run(before, x=noise), rtol=2e-5, atol=2e-5)
    return fold, operators(model)


@pytest.mark.parametrize(
    ("body", "size"),
    [
        (f"z = Conv(x, w, b) n = {NORM} r = Relu(n) y = Conv(r, v, c)", 3),
        (f"z = Conv(x, w) n = {NORM} r = Relu(n) y = Conv(r, v)", 3),
        (f"u = Conv(x, w, b) z = Relu(u) n = {NORM} y = Conv(n, v, c)", 3),
        (f"u = Conv(x, w, b) z = Relu(u) n = {NORM} p = MaxPool <kernel_shape = [1, 1]> (n) y = Conv(p, v)", 3),
        ("z = Conv(x, w, b) m = Mul(z, s) r = Relu(m) y = Conv(r, v, c)", 3),
        ("z = Conv(x, w, b) m = Mul(z, two) r = Relu(m) y = Conv(r, v, c)", 3),
        ("z = Conv(x, w, b) m = Sub(z, s) r = Relu(m) y = Conv(r, v, c)", 3),
        ("z = Conv(x, w, b) r = Relu(z) m = Div(r, s) y = Conv <pads = [1, 1, 1, 1]> (m, v, c)", 5),
        # two Convs share their weights, and only one of them is followed by BatchNorm
        (f"z = Conv(x, w, b) n = {NORM} r = Relu(n) u = Conv(x, w, b) q = Add(r, u) y = Conv(q, v)", 3),
    ],
)
def test_it_fires_beside_a_conv(body: str, size: int) -> None:
    fold, found = folded(body, "3,5,5", f"2,{size},{size}", CONV)
    assert fold.applied == 1
    assert not {"BatchNormalization", "Mul", "Div", "Sub"} & set(found)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (f"u = Conv(x, w, b) z = Relu(u) n = {NORM} y = Conv <pads = [1, 1, 1, 1]> (n, v, c)", "pads with zeros"),
        (f"z = Conv(x, w, b) n = {NORM} t = Tanh(n) y = Mul(t, z)", "what comes before it is used elsewhere, too"),
        (f"u = Conv(x, w, b) z = Relu(u) n = {NORM} y = Add(n, z)", "the Add after it needs the values as they are"),
    ],
)
def test_it_says_why_it_does_not_fire(body: str, reason: str) -> None:
    fold, _ = folded(body, "3,5,5", f"{2 if 'pads' in body else 6},5,5", CONV)
    assert not fold.applied
    ((name, why),) = fold.refusals.items()
    assert name == "BatchNormalization"
    assert reason in why


def test_a_batch_norm_that_trains_or_computes_its_weights_stays() -> None:
    trains = "n, p, q = BatchNormalization <training_mode = 1> (z, gamma, beta, mean, variance)"
    computes = "g = Abs(gamma) n = BatchNormalization(z, g, beta, mean, variance)"
    for norm in (trains, computes):
        body = f"z = Conv(x, w, b) {norm} y = Tanh(n)"
        model = graph(body, "float[batch,3,5,5] x", "float[batch,6,5,5] y", CONV)
        fold = FoldAffine()
        assert not fold(model).modified
        assert not fold.refusals


def test_several_maps_through_flatten_and_into_an_output() -> None:
    weights = random_weights(s=(4, 1, 1), t=(4, 1, 1), w=(5, 36), b=(5,), o=(5,))
    body = (
        "m = Mul(x, s) n = Add(m, t) shape = Constant <value_ints = [0, 36]> () f = Reshape(n, shape)"
        " g = Gemm <transB = 1> (f, w, b) y = Mul(g, o)"
    )
    fold, found = folded(body, "4,3,3", "5", weights)
    assert fold.applied == 3
    assert found == ["Constant", "Reshape", "Gemm"]


GEMM = "z = Gemm <transB = 1> (x, w, b)"


@pytest.mark.parametrize(
    ("body", "left"),
    [
        (f"{GEMM} y = Mul(z, s)", []),
        (f"{GEMM} y = Mul(s, z)", []),
        (f"{GEMM} y = Add(s, z)", []),
        (f"{GEMM} y = Div(z, s)", []),
        (f"{GEMM} y = Sub(z, s)", []),
        (f"{GEMM} y = Div(s, z)", ["Div"]),
        (f"{GEMM} y = Sub(s, z)", ["Sub"]),
        (f"{GEMM} y = Mul(z, two)", []),
        (f"{GEMM} y = Pow(z, two)", ["Pow"]),
        (f"{GEMM} y = Mul(z, none)", ["Mul"]),
        (f"{GEMM} y = Add(z, none)", []),
        (f"{GEMM} y = Mul(z, z)", ["Mul"]),
        ("m = Mul(x, s) y = Gemm <transB = 1> (m, w, b)", []),
        ("m = Sub(x, s) y = Gemm (m, w, b)", []),
        ("z = Gemm <transB = 1> (x, w) n = BatchNormalization <epsilon = 0.5> (z, s, b, b, s) y = Tanh(n)", ["Tanh"]),
        ("m = MatMul(x, w) n = Add(m, b) y = Tanh(n)", ["MatMul", "Add", "Tanh"]),  # the bias of a linear layer
        ("r = Relu(x) m = Mul(r, two) y = Tanh(m)", ["Relu", "Mul", "Tanh"]),  # single numbers are part of formulas
    ],
)
def test_it_reads_each_operator(body: str, left: list[str]) -> None:
    fold, found = folded(body)
    assert [name for name in found if name != "Gemm"] == left
    assert fold.applied == (not left or left == ["Tanh"])
    assert not fold.refusals


def test_what_makes_its_input_larger_stays() -> None:
    fold, found = folded("g = Gemm(x, w, b) y = Mul(g, s)", weights=random_weights(w=(4, 1), b=(1,), s=(4,)))
    assert (found, fold.applied, fold.refusals) == (["Gemm", "Mul"], 0, {})


def test_a_single_number_is_for_the_channels_of_a_conv() -> None:
    fold, found = folded("z = Conv(x, w, b) y = Add(z, two)", "3,4,6", "6,4,6", CONV)
    assert (found, fold.applied) == (["Conv"], 1)


def test_without_shifts_they_stay_behind_an_activation() -> None:
    body = "r = Relu(x) n = Add(r, s) y = Gemm <transB = 1> (n, w, b)"
    fold, found = folded(body, shifts=False)
    assert found == ["Relu", "Add", "Gemm"]
    assert list(fold.refusals.values()) == [
        "the Relu before it can't take it up, and shifts don't move into what comes after them, for precision"
    ]
    for other, shifts in ((body, True), (body.replace("Add", "Mul"), False)):
        fold, found = folded(other, shifts=shifts)
        assert found == ["Relu", "Gemm"]
        assert not fold.refusals
