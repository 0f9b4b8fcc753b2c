"""Each pass on small graphs: one where it must fire, and one where it must not, with the answers of the formulas."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from smx.activations import Operator, op
from smx.export import capture
from smx.export.capture import MixedActivation, mixed_nodes
from smx.export.passes import LowerToSorted, MergeGroups, NameByModule
from smx.hinges import Hinge, hinge_of
from tests import reference
from tests.export.graphs import FUNCTIONS, graph, mixed, normal, random_weights, run, standard

DEPTH, SCALE = 1.6732632423543772, 1.0507009873554805  # of SELU
PAPER = ("relu", "sigmoid", "tanh", "leaky_relu", "elu", "selu")


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
    # Shifts moved, sigmoid by tanh, one activation fewer; the factor of SELU went with its shift.
    assert (merge.applied, merge.refusals) == (3, {})
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


def test_merge_groups_gives_equal_activations_one_group_under_a_free_name() -> None:
    model = between("0, 1, 2, 0, 1, 2", ("relu", "tanh", "elu"))
    (node,) = mixed_nodes(model)
    node.attributes["pool"] = ir.AttrStrings("pool", ["relu", "ramp", "relu_ramp"])
    node.meta["smx.functions"] = {"relu": op("Relu"), "ramp": op("Relu"), "relu_ramp": op("Tanh")}
    assert MergeGroups()(model).modified
    assert layer(model).functions == {"relu_ramp": op("Tanh"), "relu_ramp_2": op("Relu")}
    assert layer(model).choice.tolist() == [1, 1, 0, 1, 1, 0]


def test_merge_groups_needs_no_weights_before_activations_without_an_inner_factor() -> None:
    body = f"{mixed('x', 'h', '4, 4, 5, 0', PAPER)} y = Gemm <transB = 1> (h, v, c)"
    model, before = (
        graph(body, "float[batch,4] x", "float[batch,2] y", random_weights(v=(2, 4), c=(2,))) for _ in range(2)
    )
    merge = MergeGroups()
    assert merge(model).modified
    assert not merge.refusals
    np.testing.assert_allclose(run(model, x=normal(5, 4)), run(before, x=normal(5, 4)), rtol=2e-6, atol=2e-6)


Z = f"z = Gemm <transB = 1> (x, w, b) {mixed('z', 'h', '4, 4, 1, 1, 2, 2', PAPER)}"


@pytest.mark.parametrize(
    ("after", "outputs", "reason"),
    [
        ("y = Identity(h)", 6, "it is an output"),
        ("y = Add(h, z)", 6, "the Add after it needs the values as they are"),
        ("s = Softmax(h) y = Gemm <transB = 1> (s, v, c)", 2, "the Softmax after it needs the values as they are"),
    ],
)
def test_merge_groups_leaves_what_others_need_as_it_is(after: str, outputs: int, reason: str) -> None:
    model = graph(f"{Z} {after}", "float[batch,3] x", f"float[batch,{outputs}] y", WEIGHTS)
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


@pytest.mark.parametrize("numbers", [(1.0, 1.0, -1.0), (1.0, 0.5, -0.5), (1.5, 2.5, -2.5), (2.0, 0.1, -0.1)])
def test_merge_groups_moves_the_knee_of_a_layer_of_one_activation(numbers: tuple[float, float, float]) -> None:
    """a max(z, 0) + b (exp(min(z, 0)) - 1): four operators, where 1/e < b/a < e and b/a is not 1."""
    scale, depth, _ = numbers
    x, model = normal(50, 3), between("0, 0, 0, 0, 0, 0", ("selu",))
    (node,) = mixed_nodes(model)
    node.meta[capture.FUNCTIONS] = {"selu": Hinge(scale, 0.0, depth, -depth)}
    weights = {value.name: value.const_value.numpy().astype(float) for value in model.graph.initializers.values()}  # type: ignore[union-attr]
    merge = MergeGroups()
    assert merge(model).modified
    assert merge.refusals == {}
    moved = np.exp(-1) < depth / scale < np.exp(1) and depth != scale
    (function,) = layer(model).functions.values()
    assert isinstance(function, Operator if moved else Hinge)
    z = x @ weights["w"].T + weights["b"]
    h = np.where(z > 0, scale * z, depth * np.expm1(np.minimum(z, 0)))
    LowerToSorted()(model)
    assert len([each for each in model.graph if each.op_type != "Gemm"]) == (5 if numbers == (2.0, 0.1, -0.1) else 4)
    np.testing.assert_allclose(run(model, x=x), h @ weights["v"].T + weights["c"], rtol=5e-6, atol=5e-6)


@pytest.mark.parametrize(
    ("body", "left"),
    [  # nothing before it takes the offset; nothing behind it takes the shift
        (f"{mixed('x', 'h', '0, 0, 0', ('selu',))} y = Gemm <transB = 1> (h, w, b)", Hinge(exponential=DEPTH)),
        (
            f"z = Gemm <transB = 1> (x, w, b) {mixed('z', 'h', '0, 0, 0, 0, 0, 0', ('selu',))} y = Add (h, z)",
            op("Selu", alpha=DEPTH, gamma=SCALE),
        ),
    ],
)
def test_merge_groups_leaves_a_knee_that_can_not_be_moved(body: str, left: Hinge | Operator) -> None:
    x = normal(4, 3)
    model, before = (graph(body, "float[batch,3] x", "float[batch,6] y", WEIGHTS) for _ in range(2))
    MergeGroups()(model)
    assert list(layer(model).functions.values()) == [left]
    np.testing.assert_allclose(run(model, x=x), run(before, x=x), rtol=5e-6, atol=5e-6)


def test_merge_groups_without_shifts_moves_factors_alone() -> None:
    x, model = normal(5, 3), between("0, 1, 2, 3, 4, 5")
    merge = MergeGroups(shifts=False)
    merge(model)
    assert layer(model).functions == {
        "sigmoid": op("Sigmoid"),
        "tanh": op("Tanh"),
        "leaky_relu": op("LeakyRelu", alpha=0.01),
        "relu": op("Relu"),
        "elu": op("Elu", alpha=1.0),
        "selu": Hinge(exponential=DEPTH * SCALE / SCALE, constant=-DEPTH * SCALE / SCALE),
    }
    assert (merge.applied, merge.refusals) == (1, {})
    np.testing.assert_allclose(run(model, x=x), run(between("0, 1, 2, 3, 4, 5"), x=x), rtol=2e-6, atol=2e-6)


def test_merge_groups_leaves_a_sigmoid_without_tanh() -> None:
    model = between("0, 1, 0, 1, 0, 1", ("relu", "sigmoid"))
    merge = MergeGroups()
    assert not merge(model).modified
    assert (merge.applied, merge.refusals) == (0, {})
    assert layer(model).functions == {"sigmoid": op("Sigmoid"), "relu": op("Relu")}
    assert layer(model).choice.tolist() == [1, 0, 1, 0, 1, 0]


def test_merge_groups_gives_every_reason() -> None:
    model = graph(mixed("x", "y", "1, 2, 5, 4", PAPER))
    merge = MergeGroups()
    merge(model)
    assert merge.refusals == {
        "y": "elu, selu keep their shift, since it is an output of the model;"
        " sigmoid is not computed by tanh, since it is an output of the model;"
        " selu keep their factor, since it is an output of the model"
    }


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


def test_name_by_module_numbers_further_outputs_and_skips_what_is_no_module() -> None:
    model = graph("a, b = Split <axis = 1, num_outputs = 2> (x) y = Concat <axis = 1> (a, b)")
    for node, scopes in zip(model.graph, (["", "net.1", "_empty_nn_module_stack_1", "c"], ["", "c"]), strict=True):
        node.metadata_props["pkg.torch.onnx.name_scopes"] = repr(scopes)
    name = NameByModule()
    name(model)
    assert name.applied == 2
    assert [value.name for value in model.graph.node(0).outputs] == ["net/1/Split", "net/1/Split:1"]
    assert model.graph.node(1).name == "Concat"


def test_name_by_module_leaves_nodes_of_unknown_origin() -> None:
    model = graph("z = Relu(x) y = Tanh(z)")
    name = model.graph.node(0).name
    assert not NameByModule()(model).modified
    assert model.graph.node(0).name == name
    model.graph.node(1).metadata_props["pkg.torch.onnx.name_scopes"] = repr(["", "net", "c"])
    assert NameByModule()(model).modified
    assert [node.name for node in model.graph] == [name, "net/Tanh"]


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
