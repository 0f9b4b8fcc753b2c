"""What becomes of a mixed layer: its operators, their constants, and the answers of the formulas, in two runtimes."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from smx.activations import BUILT_IN
from smx.export.capture import choose_forms
from smx.export.emit import EXPANDED
from smx.export.nodes import SMALL
from smx.export.passes import LowerInPlace, LowerToScatter, LowerToSorted, Rewriting
from smx.export.passes.lower_to_sorted import RIDERS
from smx.prices import FORMS
from smx.runtime import Session
from tests import reference
from tests.export.graphs import FUNCTIONS, graph, mixed, normal, operators, operators_of, run, standard

POOL = ("relu", "tanh", "elu")
PASSES = (LowerToScatter, LowerInPlace, LowerToSorted)


class Layer(NamedTuple):
    """A mixed layer: its choice, its pool, the shape of its values, the axis of its neurons, whether any batch fits."""

    choice: list[int]
    pool: tuple[str, ...]
    shape: tuple[int, ...]
    axis: int
    dynamic: bool = True

    def graph(self) -> ir.Model:
        batch = "batch" if self.dynamic else self.shape[0]
        shape = ",".join(map(str, (batch, *self.shape[1:])))
        node = mixed("x", "y", ", ".join(map(str, self.choice)), self.pool, self.axis)
        return graph(node, f"float[{shape}] x", f"float[{shape}] y")

    def groups(self) -> dict[str, list[int]]:
        found = {name: [i for i, k in enumerate(self.choice) if self.pool[k] == name] for name in self.pool}
        return {name: neurons for name, neurons in found.items() if neurons}

    def holds(self, model: ir.Model) -> None:
        """Hold a lowered model against NumPy, in ONNX Runtime and in the reference evaluator."""
        x = 4 * normal(*self.shape)
        expected = reference.mixed(x.astype(np.float64), np.array(self.choice), self.pool, axis=self.axis)
        np.testing.assert_allclose(run(model, x=x), expected, atol=3e-6, rtol=1e-5)
        got = Session(standard(model).SerializeToString()).run(x)
        np.testing.assert_allclose(got, expected, atol=3e-6, rtol=1e-5)


@st.composite
def layers(draw: st.DrawFn) -> Layer:
    """Draw a layer of any rank, with one group, several, or empty ones in between."""
    pool = tuple(draw(st.lists(st.sampled_from(BUILT_IN), min_size=1, max_size=6, unique=True)))
    kinds = draw(st.lists(st.integers(0, len(pool) - 1), min_size=1, max_size=len(pool)))
    choice = draw(st.lists(st.sampled_from(kinds), min_size=1, max_size=12))
    others = draw(st.lists(st.integers(1, 3), min_size=1, max_size=3))
    dynamic = draw(st.booleans())
    axis = draw(st.integers(1 if dynamic else 0, len(others)))
    return Layer(choice, pool, (*others[:axis], len(choice), *others[axis:]), axis, dynamic)


def lowered(layer: Layer, lower: type[Rewriting]) -> ir.Model:
    model = layer.graph()
    step = lower()
    assert step(model).modified
    assert step.applied == 1
    return model


@settings(max_examples=60, deadline=None)
@given(layer=layers())
def test_scatter_is_gather_activation_scatter_for_every_group(layer: Layer) -> None:
    model, groups = lowered(layer, LowerToScatter), layer.groups()
    indices = ["Shape", "Expand"] * layer.dynamic
    if len(groups) == 1:
        (name,) = groups
        assert operators(model) == operators_of(FUNCTIONS[name])
    else:
        assert operators(model) == [
            operator
            for name in groups
            for operator in ("Gather", *operators_of(FUNCTIONS[name]), *indices, "ScatterElements")
        ]
        gathered = [node for node in model.graph if node.op_type == "Gather"]
        assert [constant(node, 1).tolist() for node in gathered] == list(groups.values())
        assert {node.inputs[0].name for node in gathered if node.inputs[0]} == {"x"}
        assert [node.name for node in gathered] == [f"y/{name}/Gather" for name in groups]
    layer.holds(model)


@settings(max_examples=40, deadline=None)
@given(layer=layers())
def test_in_place_moves_with_at_most_one_scatter(layer: Layer) -> None:
    model = lowered(layer, LowerInPlace)
    found = operators(model)
    assert found.count("ScatterElements") == found.count("Gather") <= min(1, len(layer.groups()) - 1)
    layer.holds(model)


@settings(max_examples=60, deadline=None)
@given(layer=layers(), form=st.sampled_from(FORMS), is_sorted=st.booleans())
def test_every_form_gives_the_same_answers(layer: Layer, form: str, is_sorted: bool) -> None:
    layer = layer._replace(choice=sorted(layer.choice)) if is_sorted else layer
    model = layer.graph()
    choose_forms(model, {"y": form})
    for step in (LowerToSorted(), LowerInPlace()):
        step(model)
    if form == "operators" and is_sorted:
        groups = layer.groups()
        expected = [operator for name in groups for operator in operators_of(FUNCTIONS[name])]
        assert operators(model) == (["Split", *expected, "Concat"] if len(groups) > 1 else expected)
    layer.holds(model)


@settings(max_examples=40, deadline=None)
@given(layer=layers())
def test_sorted_needs_no_indices(layer: Layer) -> None:
    layer = layer._replace(choice=sorted(layer.choice))
    model = lowered(layer, LowerToSorted)
    assert not {"Gather", "ScatterElements"} & set(operators(model))
    assert len(layer.groups()) > 1 or not {"Split", "Concat"} & set(operators(model))
    layer.holds(model)


def constant(node: ir.Node, index: int) -> NDArray[Any]:
    value = node.inputs[index]
    assert value is not None
    assert value.const_value is not None
    return value.const_value.numpy()


@pytest.mark.parametrize("lower", PASSES)
def test_other_nodes_stay(lower: type[Rewriting]) -> None:
    model = graph("z = Relu(x) y = Tanh(z)")
    assert not lower()(model).modified
    assert operators(model) == ["Relu", "Tanh"]


# --- indices


@pytest.mark.parametrize(("batch", "expands"), [(EXPANDED // 2, False), (EXPANDED // 2 + 1, True)])
def test_many_indices_are_made_at_run_time(batch: int, expands: bool) -> None:
    """Two of three neurons have one group, so that group has 2 batch indices."""
    model = lowered(Layer([0, 1, 0], ("relu", "tanh"), (batch, 3), 1, dynamic=False), LowerToScatter)
    assert ("y/relu/Expand" in {node.name for node in model.graph}) == expands
    assert "y/tanh/Expand" not in {node.name for node in model.graph}
    relu, tanh = (constant(node, 1) for node in model.graph if node.op_type == "Gather")
    assert (relu.tolist(), tanh.tolist()) == ([0, 2], [1])
    stored = max(value.const_value.size for value in model.graph.initializers.values() if value.const_value)
    assert stored == (batch if expands else 2 * batch)


# --- LowerInPlace


def test_in_place_computes_hinges_together_and_moves_the_rest() -> None:
    layer = Layer([2, 0, 2, 1], POOL, (5, 4), 1)
    model = lowered(layer, LowerInPlace)
    assert operators(model) == [
        "Relu", "Clip", "Exp", "Sub", "Mul", "Add", "Gather", "Tanh", "Shape", "Expand", "ScatterElements",
    ]  # fmt: skip
    assert [node.name for node in model.graph][5:8] == ["y/relu_elu/Add", "y/tanh/Gather", "y/tanh/Tanh"]
    layer.holds(model)


def test_in_place_the_numbers_of_neurons_that_move_are_the_most_frequent_ones() -> None:
    """With ELU's numbers for the Tanh neuron all numbers are equal: no Mul."""
    layer = Layer([1, 2, 2], ("relu", "tanh", "elu"), (5, 3), 1)
    assert "Mul" not in operators(lowered(layer, LowerInPlace))


@pytest.mark.parametrize(("choice", "moved"), [([0, 0, 0, 1, 2], [3, 4]), ([0, 0, 1, 2], [0, 1])])
def test_in_place_the_largest_group_stays_where_hinges_are_fewer(choice: list[int], moved: list[int]) -> None:
    model = lowered(Layer(choice, ("tanh", "relu", "elu"), (5, len(choice)), 1), LowerInPlace)
    (gather,) = (node for node in model.graph if node.op_type == "Gather")
    assert constant(gather, 1).tolist() == moved


def test_in_place_several_groups_share_one_scatter() -> None:
    layer = Layer([0, 1, 2, 0, 0, 1], ("gelu", "tanh", "silu"), (5, 6), 1)
    model = lowered(layer, LowerInPlace)
    found = operators(model)
    names = [node.name for node in model.graph if node.op_type in ("Gather", "Split", "Concat", "ScatterElements")]
    assert names == ["y/Gather", "y/Split", "y/Concat", "y/ScatterElements"]
    assert found[0] == "Div"  # of GELU, the largest group
    layer.holds(model)


# --- LowerToSorted


@pytest.mark.parametrize(("size", "joined"), [(RIDERS, True), (RIDERS + 1, False)])
def test_sorted_splits_and_concatenates(size: int, joined: bool) -> None:
    """A run of few ReLU is computed with the ELU beside it."""
    layer = Layer([0, 0, *[1] * size, 2, 2, 2], ("tanh", "relu", "elu"), (3, size + 5), 1)
    model = lowered(layer, LowerToSorted)
    alone = ["Split", "Tanh", "Relu", "Relu", "Clip", "Exp", "Sub", "Add", "Concat"]
    together = ["Split", "Tanh", "Relu", "Clip", "Exp", "Sub", "Mul", "Add", "Concat"]
    assert operators(model) == (together if joined else alone)
    split = model.graph.node(0)
    assert constant(split, 1).tolist() == ([2, size + 3] if joined else [2, size, 3])
    layer.holds(model)


@pytest.mark.parametrize(("positions", "joined"), [(RIDERS // 2, True), (RIDERS // 2 + 1, False)])
def test_sorted_counts_the_values_of_a_run(positions: int, joined: bool) -> None:
    """Two neurons of ReLU have twice as many values as there are positions."""
    layer = Layer([0, 0, 1, 1], ("relu", "elu"), (2, 4, positions), 1)
    assert ("Split" not in operators(lowered(layer, LowerToSorted))) == joined


def test_sorted_computes_neighbours_of_one_form_together() -> None:
    layer = Layer([0, 1, 2, 2, 3, 3], ("tanh", "relu", "elu", "selu"), (3, 6), 1)
    model = lowered(layer, LowerToSorted)
    found = operators(model)
    assert (found.count("Split"), found.count("Exp"), found.count("Concat")) == (1, 1, 1)
    assert [value.name for value in model.graph.node(0).outputs] == ["y/tanh/z", "y/relu_elu_selu/z"]
    layer.holds(model)
    apart = lowered(Layer([0, 1, 2], ("elu", "tanh", "selu"), (3, 3), 1), LowerToSorted)
    assert len(apart.graph.node(0).outputs) == 3


def test_sorted_keeps_single_operators_where_there_are_few_values() -> None:
    layer = Layer([0, 1, 2, 2], ("tanh", "elu", "selu"), (1, 4), 1, dynamic=False)
    model = lowered(layer, LowerToSorted)
    assert operators(model) == ["Split", "Tanh", "Elu", "Selu", "Concat"]
    layer.holds(model)


@pytest.mark.parametrize(("neurons", "single"), [(SMALL - 1, True), (SMALL, False)])
def test_sorted_has_other_operators_from_some_number_of_values_on(neurons: int, single: bool) -> None:
    layer = Layer([0] * neurons, ("elu",), (1, neurons), 1, dynamic=False)
    assert (operators(lowered(layer, LowerToSorted)) == ["Elu"]) == single


@pytest.mark.parametrize(
    ("choice", "pool", "positions", "left"),
    [
        # runs + 2 against 1 operator in place, 7 + 1 for what moves, and 1 for 50 values that move
        ([0, 1, 0, 1, 0, 1, 0], ("relu", "tanh"), 1, False),
        ([0, 1] * 4, ("relu", "tanh"), 1, True),
        ([0, 1] * 4, ("relu", "tanh"), 12, True),
        ([0, 1] * 4, ("relu", "tanh"), 13, False),
        # against 7 operators in place, where nothing moves
        ([0, 1, 0, 1, 0], ("relu", "leaky_relu"), 40, False),
        ([0, 1] * 3, ("relu", "leaky_relu"), 40, True),
        # against 7 operators in place, and 7 + 1 for what moves
        ([0, 1, 2] * 5, ("tanh", "relu", "leaky_relu"), 40, False),
        ([0, 1, 2] * 6, ("tanh", "relu", "leaky_relu"), 40, True),
    ],
)
def test_sorted_leaves_layers_of_too_many_runs(
    choice: list[int], pool: tuple[str, ...], positions: int, left: bool
) -> None:
    model = Layer(choice, pool, (3, len(choice), positions), 1).graph()
    lower = LowerToSorted()
    assert lower(model).modified != left
    told = f"{len(pool)} groups in {len(choice)} runs, since the layer has too many activations"
    assert lower.refusals == ({"y": told} if left else {})
