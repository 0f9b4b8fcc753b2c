"""Each pass on small graphs: one where it must fire, and one where it must not, with the answers of the formulas."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from numpy.typing import NDArray

from smx.activations import Operator, op
from smx.export.capture import MixedActivation, mixed_nodes
from smx.export.passes import FoldAffine, MergeGroups, NameByModule
from smx.hinges import Hinge, hinge_of
from tests import reference
from tests.export.graphs import FUNCTIONS, graph, mixed, operators, run, standard

DEPTH, SCALE = 1.6732632423543772, 1.0507009873554805  # of SELU
PAPER = ("relu", "sigmoid", "tanh", "leaky_relu", "elu", "selu")


def normal(*shape: int) -> NDArray[np.float32]:
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def random_weights(**shapes: tuple[int, ...]) -> str:
    """Write initializers with positive values of several sizes."""
    random = np.random.default_rng(1)
    parts = []
    for name, shape in shapes.items():
        values = ", ".join(f"{value:.4f}" for value in random.uniform(0.3, 2.0, int(np.prod(shape))))
        parts.append(f"float[{','.join(map(str, shape))}] {name} = {{{values}}}")
    return f"<{', '.join(parts)}>"


# --- MergeGroups


BETWEEN = "z = Gemm <transB = 1> (x, w, b) {} y = Gemm <transB = 1> (h, v, c)"
WEIGHTS = random_weights(w=(6, 3), b=(6,), v=(2, 6), c=(2,))


def between(choice: str, pool: tuple[str, ...] = PAPER) -> ir.Model:
    body = BETWEEN.format(mixed("z", "h", choice, pool))
    return graph(body, "float[batch,3] x", "float[batch,2] y", WEIGHTS)


def layer(model: ir.Model) -> MixedActivation:
    (node,) = mixed_nodes(model)
    return MixedActivation.of(node)


def test_merge_groups_writes_every_activation_by_a_simpler_one() -> None:
    x = normal(5, 3)
    before = run(between("0, 1, 2, 3, 4, 5"), x=x)
    model = between("0, 1, 2, 3, 4, 5")
    merge = MergeGroups()
    assert merge(model).modified
    assert not merge.refusals
    assert layer(model).functions == {
        "sigmoid_tanh": op("Tanh"),
        "leaky_relu": op("LeakyRelu", alpha=0.01),
        "relu": op("Relu"),
        "elu": Hinge(exponential=1.0),
        "selu": Hinge(exponential=DEPTH * SCALE / SCALE),
    }
    np.testing.assert_allclose(run(model, x=x), before, rtol=2e-6, atol=2e-6)


def test_merge_groups_rounds_once() -> None:
    """The weights are those of the formulas in float64, rounded to float32."""
    model = between("0, 1, 2, 3, 4, 5")
    old = {value.name: value.const_value.numpy().astype(np.float64) for value in model.graph.initializers.values()}  # type: ignore[union-attr]
    MergeGroups()(model)
    new = {value.name: value.const_value.numpy() for value in model.graph.initializers.values()}  # type: ignore[union-attr]
    half = np.array([1, 0.5, 1, 1, 1, 1])
    scale = np.array([1, 0.5, 1, 1, 1, SCALE])
    shift = np.array([0, 0.5, 0, 0, -1, -SCALE * DEPTH])
    np.testing.assert_array_equal(new["w"], (old["w"] * half[:, None]).astype(np.float32))
    np.testing.assert_array_equal(new["b"], (old["b"] * half).astype(np.float32))
    np.testing.assert_array_equal(new["v"], (old["v"] * scale).astype(np.float32))
    np.testing.assert_allclose(new["c"], (old["c"] + old["v"] @ shift).astype(np.float32), rtol=1e-7)


def test_merge_groups_gives_equal_activations_one_group() -> None:
    body = BETWEEN.format(mixed("z", "h", "0, 1, 0, 1, 0, 1", ("relu", "ramp")))
    model = graph(body.replace("ramp", "tanh"), "float[batch,3] x", "float[batch,2] y", WEIGHTS)
    (node,) = mixed_nodes(model)
    node.attributes["pool"] = ir.AttrStrings("pool", ["relu", "ramp"])
    node.meta["smx.functions"] = {"relu": op("Relu"), "ramp": op("Relu")}
    assert MergeGroups()(model).modified
    assert layer(model).functions == {"relu_ramp": op("Relu")}
    assert set(layer(model).choice) == {0}


def test_merged_groups_get_names_that_are_free() -> None:
    model = between("0, 1, 2, 0, 1, 2", ("relu", "tanh", "elu"))
    (node,) = mixed_nodes(model)
    node.attributes["pool"] = ir.AttrStrings("pool", ["relu", "ramp", "relu_ramp"])
    node.meta["smx.functions"] = {"relu": op("Relu"), "ramp": op("Relu"), "relu_ramp": op("Tanh")}
    MergeGroups()(model)
    assert sorted(map(str, layer(model).functions.values())) == ["Relu(x)", "Tanh(x)"]


@pytest.mark.parametrize(
    ("body", "outputs", "reason"),
    [
        (f"z = Gemm <transB = 1> (x, w, b) {mixed('z', 'y', '4, 4, 1, 1, 2, 2', PAPER)}", 6, "it is an output"),
        (
            f"z = Gemm <transB = 1> (x, w, b) {mixed('z', 'h', '4, 4, 1, 1, 2, 2', PAPER)} y = Add(h, z)",
            6,
            "the Add after it needs the values as they are",
        ),
        (
            f"z = Gemm <transB = 1> (x, w, b) {mixed('z', 'h', '4, 4, 1, 1, 2, 2', PAPER)} s = Softmax(h)"
            " y = Gemm <transB = 1> (s, v, c)",
            2,
            "the Softmax after it needs the values as they are",
        ),
    ],
)
def test_merge_groups_leaves_what_others_need_as_it_is(body: str, outputs: int, reason: str) -> None:
    model = graph(body, "float[batch,3] x", f"float[batch,{outputs}] y", WEIGHTS)
    before = {name: value.const_value for name, value in model.graph.initializers.items()}
    merge = MergeGroups()
    assert not merge(model).modified
    assert reason in merge.refusals[layer(model).scope]
    assert {name: value.const_value for name, value in model.graph.initializers.items()} == before
    assert sorted(layer(model).functions) == ["elu", "sigmoid", "tanh"]


def test_merge_groups_moves_a_factor_but_no_shift_through_zero_padding() -> None:
    def net() -> ir.Model:
        body = (
            "z = Conv (x, w, b) " + mixed("z", "h", "0, 1, 4, 5", PAPER) + " y = Conv <pads = [1, 1, 1, 1]> (h, v, c)"
        )
        weights = random_weights(w=(4, 2, 1, 1), b=(4,), v=(3, 4, 3, 3), c=(3,))
        return graph(body, "float[batch,2,5,5] x", "float[batch,3,5,5] y", weights)

    x = normal(2, 2, 5, 5)
    model = net()
    merge = MergeGroups()
    merge(model)
    assert layer(model).functions["selu"] == Hinge(exponential=DEPTH * SCALE / SCALE, constant=-DEPTH * SCALE / SCALE)
    assert layer(model).functions["elu"] == op("Elu", alpha=1.0)
    assert "pads with zeros" in merge.refusals["h"]
    np.testing.assert_allclose(run(model, x=x), run(net(), x=x), rtol=1e-5, atol=1e-5)


def test_merge_groups_keeps_elu_where_there_are_few_values() -> None:
    body = BETWEEN.format(mixed("z", "h", "4, 4, 5, 5, 0, 0", PAPER))
    model = graph(body, "float[1,3] x", "float[1,2] y", WEIGHTS)
    MergeGroups()(model)
    assert layer(model).functions["elu"] == op("Elu", alpha=1.0)


# --- FoldAffine


NORM = random_weights(
    w=(6, 3, 1, 1), b=(6,), gamma=(6,), beta=(6,), mean=(6,), variance=(6,), v=(2, 6, 3, 3), c=(2,), s=(6, 1, 1)
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


# --- NameByModule


def test_name_by_module_names_after_the_innermost_module() -> None:
    model = graph("z = Relu(x) w = Relu(z) y = Tanh(w)")
    for node, scopes in zip(
        model.graph, (["", "net", "net.0", "call"], ["", "net", "net.0", "c"], ["", "c"]), strict=True
    ):
        node.metadata_props["pkg.torch.onnx.name_scopes"] = repr(scopes)
    assert NameByModule()(model).modified
    assert [node.name for node in model.graph] == ["net/0/Relu", "net/0/Relu_2", "Tanh"]
    assert [node.outputs[0].name for node in model.graph] == ["net/0/Relu", "net/0/Relu_2", "y"]


def test_name_by_module_leaves_nodes_of_unknown_origin() -> None:
    model = graph("y = Relu(x)")
    name = model.graph.node(0).name
    assert not NameByModule()(model).modified
    assert model.graph.node(0).name == name


# --- hinges


@pytest.mark.parametrize("name", ["relu", "leaky_relu", "elu", "selu", "identity"])
def test_hinges_are_the_activations(name: str) -> None:
    hinge = hinge_of(FUNCTIONS[name])
    assert hinge is not None
    z = np.linspace(-9, 9, 999)
    low, high = np.minimum(z, 0), np.maximum(z, 0)
    value = hinge.positive * high + hinge.negative * low + hinge.exponential * np.exp(low) + hinge.constant
    np.testing.assert_allclose(value, reference.FUNCTIONS[name](z), atol=1e-12)


@pytest.mark.parametrize(
    "expression", [op("Selu", gamma=0.0), op("Selu", gamma=-1.0), op("LeakyRelu", alpha=1.5), op("Relu", alpha=1.0)]
)
def test_what_is_no_hinge(expression: Operator) -> None:
    assert hinge_of(expression) is None


@pytest.mark.parametrize("name", ["sigmoid", "tanh", "gelu", "silu", "mish", "hardswish"])
def test_other_activations_are_no_hinges(name: str) -> None:
    assert hinge_of(FUNCTIONS[name]) is None
    assert standard(graph(mixed("x", "y", "0, 0, 0, 0", (name,))))
