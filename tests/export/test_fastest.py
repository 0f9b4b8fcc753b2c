"""The layout `fastest`: all forms give the same answers; what was measured, or what prices say, is taken."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from smx.errors import InputError
from smx.export.capture import choose_forms, describe_layers
from smx.export.compiler import compile
from smx.export.fastest import Fastest, LayerChoice, Search
from smx.export.passes import lower_to_sorted
from smx.export.provenance import with_provenance
from smx.export.searching import by_measuring, by_prices, cut, different, find_fastest
from smx.prices import FORMS, RIDERS
from smx.runtime import Session
from smx.runtime.metadata import LayerInfo
from smx.timing import BATCH_SIZES
from smx.timing.interleave import Timings
from tests import reference
from tests.export.graphs import graph, mixed, normal, random_weights
from tests.smx.test_prices import PRICES
from tests.timing.fakes import timings

SIZES = {"tanh": 4, "sigmoid": 2, "leaky_relu": 34, "relu": 35, "elu": 3, "selu": 2}
POOL = tuple(SIZES)
CHOICE = np.repeat(np.arange(len(POOL)), list(SIZES.values()))
N = len(CHOICE)


def network() -> ir.Model:
    """Linear(3, 80), all six activations in two groups that need their own form and four that share one; twice."""
    choice = ", ".join(map(str, CHOICE))
    body = (
        f"z1 = Gemm(x, w1, b1)  {mixed('z1', 'h1', choice, POOL)}"
        f"  z2 = Gemm(h1, w2, b2)  {mixed('z2', 'h2', ', '.join(['0'] * 5), ('selu',))}  y = Gemm(h2, w3, b3)"
    )
    shapes = {"w1": (3, N), "b1": (N,), "w2": (N, 5), "b2": (5,), "w3": (5, 2), "b3": (2,)}
    return graph(body, "float[batch,3] x", "float[batch,2] y", random_weights(**shapes))


def build(layout: str, forms: Mapping[str, str]) -> tuple[onnx.ModelProto, tuple[LayerInfo, ...]]:
    model = network()
    layers = describe_layers(model)
    choose_forms(model, forms)
    compile(model, layout)
    model.graph.opset_imports.pop("smx", None)
    ir.passes.common.ShapeInferencePass()(model)
    return ir.to_proto(model), with_provenance(model, layers)


def operators(proto: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in proto.graph.node]


EXPECTED = {
    # z -> Split -> ... -> Concat of tanh (with sigmoid), and of what the form says
    "operators": ["Split", "Tanh", "LeakyRelu", "Relu", "Elu", "Elu", "Concat"],
    "shared": ["Split", "Tanh", "LeakyRelu", "Relu", "Relu", "Clip", "Exp", "Mul", "Add", "Concat"],
    "joined": ["Split", "Tanh", "Mul", "Max", "Clip", "Exp", "Mul", "Add", "Concat"],
    "in place": [
        "Gather", "Tanh", "Mul", "Max", "Clip", "Exp", "Mul", "Add", "Shape", "Expand", "ScatterElements",
    ],
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_a_form_has_its_operators_and_the_answers_of_the_formulas(form: str) -> None:
    proto, layers = build("sorted", {"h1": form})
    onnx.checker.check_model(proto, full_check=True)
    part = cut(proto, layers)["h1"]
    assert sorted(operators(part)) == sorted(["Gemm", *EXPECTED[form]])
    weights = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in ir.to_proto(network()).graph.initializer}
    x = normal(4, 3)
    h = reference.mixed(x @ weights["w1"] + weights["b1"], CHOICE, POOL, axis=1)
    h = reference.mixed(h @ weights["w2"] + weights["b2"], np.zeros(5, np.int64), ("selu",), axis=1)
    expected = h @ weights["w3"] + weights["b3"]
    np.testing.assert_allclose(reference.evaluate_onnx(proto, x=x), expected, atol=1e-4, rtol=1e-4)
    np.testing.assert_allclose(Session(proto.SerializeToString()).run(x), expected, atol=1e-4, rtol=1e-4)


def test_the_usual_form_is_shared_and_for_few_values_operators() -> None:
    assert operators(build("sorted", {})[0]) == operators(build("sorted", dict.fromkeys(("h1", "h2"), "shared"))[0])
    assert RIDERS == lower_to_sorted.RIDERS, "prices know which neurons join others"


def test_layers_are_cut_out_with_their_gemm_and_run_alone() -> None:
    parts = cut(*build("sorted", {"h2": "operators"}))
    assert operators(parts["h2"]) == ["Gemm", "Elu"]
    shapes = {name: Session(part.SerializeToString()).inputs[0].shape for name, part in parts.items()}
    assert shapes == {"h1": ["batch", 3], "h2": ["batch", N]}
    assert list(different({"a": parts["h1"], "b": parts["h2"], "c": parts["h1"]})) == ["a", "b"]
    proto, layers = build("sorted", {})
    for value in proto.graph.value_info:
        if value.name == parts["h2"].graph.input[0].name:
            value.type.tensor_type.shape.dim[0].dim_value = 7
    assert cut(proto, layers).keys() == {"h1"}, "its first axis is not the batch"
    del proto.graph.value_info[:]
    assert not cut(proto, layers).keys() & {"h1"}, "a value of unknown shape can't be an output"


class Machine:
    """Times models by the number of their operators; what costs more is stated."""

    def __init__(self, each: float = 1.0, noise: float = 0.0, **costs: float) -> None:
        self.each, self.noise, self.costs = each, noise, costs
        self.calls: list[list[str]] = []

    def __call__(self, models: Mapping[str, onnx.ModelProto]) -> Timings:
        self.calls.append(list(models))
        random = np.random.default_rng(0)

        def blocks(proto: onnx.ModelProto) -> Any:
            cost = sum(self.costs.get(operator, self.each) for operator in operators(proto))
            return cost * np.exp(random.normal(0, self.noise, (5, 4)))

        return timings({(name, size): blocks(proto) for name, proto in models.items() for size in (1, 8)})


def measured(machine: Machine, layers: Sequence[str] = ("h1", "h2")) -> tuple[str, dict[str, str]]:
    found = by_measuring(build, [LayerInfo(name=name, axis=1, groups={}) for name in layers], (1, 8), machine)
    return found.file, {each.layer: each.form for each in found.layers}


def test_the_form_with_the_least_time_is_taken_in_each_layer() -> None:
    machine = Machine()  # every operator costs the same
    assert measured(machine) == ("forms", {"h1": "operators", "h2": "operators"})
    small, whole = machine.calls
    assert set(small) == {f"{form} of h1" for form in ("sorted", "operators", "joined", "in place")} | {
        f"{form} of h2" for form in ("sorted", "operators")
    }, "forms that are the same operators are measured once"
    assert whole == ["forms", "sorted", "scatter"]
    assert measured(Machine(Elu=5)) == ("forms", {"h1": "joined", "h2": "sorted"})
    assert measured(Machine(Elu=5, Split=9)) == ("forms", {"h1": "in place", "h2": "sorted"})
    assert measured(Machine(Elu=5, Max=9)) == ("sorted", {"h1": "sorted", "h2": "sorted"})


def test_noise_chooses_nothing() -> None:
    machine = Machine(each=0.0, noise=0.2, Gemm=1.0)
    assert measured(machine) == ("sorted", {"h1": "sorted", "h2": "sorted"})
    assert machine.calls[1] == ["sorted", "scatter"]


def test_a_whole_file_that_is_faster_takes_its_place() -> None:
    class Deceived(Machine):
        def __call__(self, models: Mapping[str, onnx.ModelProto]) -> Timings:
            found = super().__call__(models)
            for name, size in found.bursts:
                if name == self.favourite:
                    found.bursts[name, size] = [[burst / 10 for burst in block] for block in found.bursts[name, size]]
            return found

        favourite = "sorted"

    assert measured(Deceived())[0] == "sorted"
    scatter = Deceived()
    scatter.favourite = "scatter"
    assert measured(scatter)[0] == "scatter"


def test_prices_decide_without_measuring() -> None:
    layers = [LayerInfo(name="a", axis=1, groups={"elu": 256}), LayerInfo(name="b", axis=1, groups={"relu": 8})]
    found = by_prices(layers, (1,), PRICES)
    assert [each.form for each in found.layers] == ["operators", "sorted"]
    (low, ratio, high) = found.layers[0].ratios["operators"][1]
    assert low == ratio == high < 1
    small = by_prices(layers, (1,), PRICES, 1)  # there `sorted` has the form operators already
    assert all("operators" not in choice.ratios for choice in small.layers)
    assert [each.form for each in small.layers] == ["sorted", "sorted"]
    at_many = by_prices(layers, (128,), PRICES)
    assert [each.form for each in at_many.layers] == ["sorted", "sorted"]


def test_what_is_found_and_why(tmp_path: Any) -> None:
    path = tmp_path / "prices.json"
    path.write_text(PRICES.to_json())
    layers = [LayerInfo(name="a", axis=1, groups={"elu": 256})]
    found = find_fastest(build, layers, Search(for_batch=1, measure=False, price=path), None)
    assert (found.layout, found.forms, found.batch_sizes, found.measured) == ("sorted", {"a": "operators"}, (1,), False)
    form, file, where = found.reasons()
    assert form.startswith("a operators: 0.")
    assert form.endswith(" at batch 1 of sorted's")
    assert (file, where) == ("taken: forms", "by prices of made up, cpu, threads: 1")
    choice = LayerChoice(layer="a", form="joined", ratios={"joined": {1: (0.9, 0.8, 0.95)}})
    made: dict[str, Any] = {
        "measured": True, "batch_sizes": (1,), "layers": (choice,), "provider": "cpu", "threads": None,
        "machine": {"processor": "p"}, "seconds": 1.0,
    }  # fmt: skip
    form = "a joined: 0.900 (0.800-0.950) at batch 1 of sorted's"
    where = "measured on p, cpu, threads: all"
    slow = Fastest(file="sorted", ratios={"sorted": {1: (0.9, 0.85, 0.95)}}, **made)
    assert (slow.layout, slow.forms) == ("sorted", {})
    file = "taken: sorted; relative to these forms sorted takes 0.900 (0.850-0.950) at batch 1"
    assert slow.reasons() == (form, file, where)
    kept = Fastest(file="forms", ratios={"sorted": {1: (1.1, 1.05, 1.2), 2: (1.0, 0.9, 1.1)}}, **made)
    file = "sorted takes 1.100 (1.050-1.200) at batch 1, 1.000 (0.900-1.100) at batch 2"
    assert kept.reasons() == (form, f"taken: forms; relative to these forms {file}", where)
    made["layers"] = ()
    assert Fastest(file="sorted", ratios={}, **made).reasons() == ("taken: sorted", where)
    scatter = Fastest(file="scatter", ratios={"scatter": {1: (0.9, 0.85, 0.95)}}, **made)
    file = "taken: scatter; relative to sorted scatter takes 0.900 (0.850-0.950) at batch 1"
    assert scatter.reasons() == (file, where)


def test_what_takes_no_random_input_is_told_so() -> None:
    def never(*given: Any) -> tuple[onnx.ModelProto, tuple[LayerInfo, ...]]:
        text = '<ir_version: 10, opset_import: ["" : 21]> g (float[batch,n] x) => (float[batch,n] y) {{ y = {}(x) }}'
        return onnx.parser.parse_model(text.format("Exp" if given[0] == "sorted" else "Tanh")), ()

    with pytest.raises(InputError, match=r"fastest can't be measured .* not fixed.*; let prices decide"):
        find_fastest(never, [], Search(for_batch=2, seconds=0), None)


def test_the_batch_sizes_that_count() -> None:
    assert Search().batch_sizes(None) == BATCH_SIZES
    assert (
        Search(for_batch=3).batch_sizes(None) == Search().batch_sizes(3) == Search(for_batch=3).batch_sizes(3) == (3,)
    )
    with pytest.raises(InputError, match="made for batch size 4, so it can't be searched for 3"):
        Search(for_batch=3).batch_sizes(4)
    with pytest.raises(InputError, match="must be at least 1, got 0"):
        Search(for_batch=0)
    with pytest.raises(InputError, match=r"prices, as in p.json, decide only without measuring"):
        Search(price="p.json")
