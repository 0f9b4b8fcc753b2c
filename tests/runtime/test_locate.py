"""Where a model leaves its reference: nowhere if it is healthy, and what is said of a fault."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from onnx import helper
from torch import Tensor, nn

import smx
from smx.errors import InputError
from smx.export import export_onnx
from smx.export.compiler import LAYOUTS
from smx.export.reference import in_parts
from smx.layers import Mixed
from smx.models import mlp
from smx.paper import PAPER_POOL
from smx.runtime.metadata import ModelInfo
from smx.runtime.parity.inputs import synthetic_inputs
from smx.runtime.parity.locate import ACTIVATION, BEFORE, OUTPUT, Location, locate
from tests import reference
from tests.export.test_random_networks import networks
from tests.faults import Array, Export, choice, convolutional, one_thread

SIZES = (6, 12, 9, 4)


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    with one_thread():
        yield


def normal(*shape: int) -> Array:
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def small() -> nn.Module:
    torch.manual_seed(0)
    return mlp(SIZES, lambda i: choice(SIZES[i], PAPER_POOL, i)).eval()


def export(module: nn.Module, path: Path, *inputs: Array, **options: Any) -> Path:
    export_onnx(module, path, example_input=tuple(torch.from_numpy(x[:2]) for x in inputs), **options)
    return path


def located(module: nn.Module, path: Path, *inputs: Array) -> Location:
    return locate(path, in_parts(module), in_parts(module, torch.float64), *inputs)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the small network, sorted."""
    return export(small(), tmp_path_factory.mktemp("locate") / "small.onnx", normal(2, 6), layout="sorted")


def changed(module: nn.Module, source: Path, target: Path, change: Callable[[Export], object]) -> Path:
    """Write a copy of a file with a fault."""
    model = Export.of(module, onnx.load(source)).copy()
    change(model)
    target.write_bytes(model.proto.SerializeToString())
    return target


def with_provenance(source: Path, target: Path, **fields: Any) -> Path:
    """Write a copy of a file with another provenance of its first layer."""
    proto = onnx.load(source)
    info = ModelInfo.from_properties({entry.key: entry.value for entry in proto.metadata_props})
    assert info is not None
    first, *rest = info.layers
    assert first.provenance is not None
    provenance = replace(first.provenance, **fields) if fields else None
    helper.set_model_props(proto, replace(info, layers=(replace(first, provenance=provenance), *rest)).to_properties())
    target.write_bytes(proto.SerializeToString())
    return target


# --- healthy models


@settings(max_examples=4, deadline=None, suppress_health_check=list(HealthCheck))
@given(drawn=networks())
def test_random_networks_have_no_fault(
    drawn: tuple[nn.Module, tuple[int, ...]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    module, shape = drawn
    layers = sum(isinstance(layer, Mixed) for layer in module.modules())
    for layout in LAYOUTS:
        path = tmp_path_factory.mktemp("random") / f"{layout}.onnx"
        export(module, path, np.zeros((2, *shape), np.float32), layout=layout)
        for name, x in synthetic_inputs(shape, examples=16).items():
            location = located(module, path, x)
            assert location.fault is None, (layout, name, location)
            assert len(location.places) == 2 * layers + 1


class Twice(nn.Module):
    """Calls one layer twice."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.last = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 3)
        self.activation = choice(6, PAPER_POOL, 0)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.activation(self.second(self.activation(self.first(x)))))  # type: ignore[no-any-return]


class Several(nn.Module):
    """Takes two inputs, and gives three outputs of different shapes, a layer's activations among them."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(6, 6), nn.Linear(6, 3)
        self.activation = choice(6, PAPER_POOL, 0)

    def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
        h = self.activation(self.first(x))
        return h, self.last(h + y), h.sum(1)


class Steps(nn.Module):
    """Computes all steps of all examples as one batch, or with the steps first."""

    def __init__(self, *, transposed: bool) -> None:
        super().__init__()
        self.transposed = transposed
        self.first, self.activation, self.last = nn.Linear(6, 6), choice(6, PAPER_POOL, 0), nn.Linear(6, 3)
        self.activation.dim = -1

    def forward(self, x: Tensor) -> Tensor:
        z = self.first(x.transpose(0, 1) if self.transposed else x.flatten(0, 1))
        y: Tensor = self.last(self.activation(z))
        return y.transpose(0, 1) if self.transposed else y.reshape(-1, 4, 3)


def own_activation() -> nn.Module:
    cube = smx.Activation("cube", lambda z: z**3, smx.op("Mul", "x", smx.op("Mul", "x", "x")))
    return nn.Sequential(nn.Linear(6, 9), Mixed([0, 1, 2] * 3, ("relu", "gelu", cube)), nn.Linear(9, 2))


def shared() -> nn.Module:
    activation = choice(6, PAPER_POOL, 0)
    return nn.Sequential(nn.Linear(6, 6), activation, nn.Linear(6, 6), activation)


@pytest.mark.parametrize(
    ("module", "inputs", "options"),
    [
        (choice(6, PAPER_POOL, 0), [(7, 6)], {}),
        (nn.Sequential(choice(6, PAPER_POOL, 0), choice(6, PAPER_POOL, 1), nn.Linear(6, 2)), [(7, 6)], {}),
        (nn.Linear(6, 2), [(7, 6)], {}),
        (Twice(), [(7, 6)], {}),
        (shared(), [(7, 6)], {"layout": "scatter"}),
        (Several(), [(7, 6), (7, 6)], {}),
        (Steps(transposed=False), [(7, 4, 6)], {}),
        (Steps(transposed=False), [(7, 4, 6)], {"batch": 2}),
        (Steps(transposed=True), [(7, 4, 6)], {"batch": 3}),
        (own_activation(), [(7, 6)], {}),
        (small(), [(7, 6)], {"batch": 3, "opset": 13}),
        (small(), [(7, 6)], {"opset": 26, "layout": "scatter"}),
        (small(), [(64, 6)], {"precision": "float16"}),
        (small(), [(64, 6)], {"precision": "int8", "calibration": normal(64, 6)}),
    ],
)
def test_every_kind_of_network_is_followed(
    module: nn.Module, inputs: list[tuple[int, ...]], options: dict[str, Any], tmp_path: Path
) -> None:
    x = [normal(*shape) for shape in inputs]
    path = export(module.eval(), tmp_path / "model.onnx", *x, **{"layout": "sorted", **options})
    location = located(module, path, *x)
    assert location.fault is None, location
    assert all(place.difference < place.limit for place in location.places)


@pytest.mark.parametrize("factor", [1e4, 1e30, 1e38, np.inf, np.nan, 1e-40, 0.0])
def test_extreme_inputs_are_no_fault(factor: float, exported: Path) -> None:
    with np.errstate(over="ignore"):
        x = (normal(9, 6) * factor).astype(np.float32)
    assert located(small(), exported, x).fault is None


def test_what_is_left_of_large_terms_is_no_fault(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module, x = nn.Sequential(nn.Linear(6, 1), Mixed([0], ["silu"])).eval(), 1e4 * normal(9, 6)
    assert located(module, export(module, tmp_path / "model.onnx", normal(2, 6)), x).fault is None


def test_a_constant_that_moved_into_the_next_layer_is_rounded_there(tmp_path: Path) -> None:
    """Where ELU gives 0, the file has a 1, of which large weights make large terms that cancel."""
    torch.manual_seed(0)
    last = nn.Linear(64, 3)
    last.weight.data *= 50
    module = nn.Sequential(nn.Linear(6, 64, bias=False), Mixed([0] * 64, ["elu"]), last).eval()
    path = export(module, tmp_path / "model.onnx", np.zeros((2, 6), np.float32))
    assert located(module, path, np.zeros((2, 6), np.float32)).fault is None


def test_how_a_runtime_approximates_is_no_fault(tmp_path: Path) -> None:
    """In ONNX Runtime sigmoid(-26) is 0, not 5e-12."""
    module, x = Mixed([0], ["sigmoid"]), np.linspace(-40, 40, 81, dtype=np.float32)[:, None]
    assert located(module, export(module, tmp_path / "model.onnx", x), x).fault is None


# --- what is said of a fault


def shifted(initializer: str, layer: str, neuron: int) -> Callable[[Export], None]:
    """Return what adds 0.5 to a bias."""

    def plant(model: Export) -> None:
        with model.edited(initializer) as bias:
            bias[model.at(layer, [neuron])] += 0.5

    return plant


def activation_of(module: nn.Module, layer: str, neuron: int) -> str:
    mixed = module.get_submodule(layer)
    assert isinstance(mixed, Mixed)
    return mixed.pool[int(mixed.choice[neuron])].name


def step(module: nn.Module, layer: str, neuron: int) -> float:
    """Return what 0.5 in the file is in PyTorch: a sigmoid that is computed as tanh gets half of z."""
    return 1.0 if activation_of(module, layer, neuron) == "sigmoid" else 0.5


def test_a_fault_is_told_with_all_that_is_known(exported: Path, tmp_path: Path) -> None:
    module, x = small(), normal(9, 6)
    path = changed(module, exported, tmp_path / "model.onnx", shifted("layer2.linear.bias", "layer2", 4))
    location = located(module, path, x)
    fault = location.fault
    assert fault is not None
    assert (fault.layer, fault.part, fault.neuron, fault.neurons) == ("layer2.activation", BEFORE, 4, (4,))
    assert fault.activation == activation_of(module, "layer2.activation", 4)
    assert fault.examples == 9
    state = {name: value.double().numpy() for name, value in module.state_dict().items()}
    h = x @ state["layer1.linear.weight"].T + state["layer1.linear.bias"]
    h = reference.mixed(h, state["layer1.activation.choice"].astype(np.int64), PAPER_POOL)
    z = h @ state["layer2.linear.weight"].T + state["layer2.linear.bias"]
    assert fault.expected == pytest.approx(z[fault.example, 4], abs=1e-5)
    assert fault.got - fault.expected == pytest.approx(step(module, "layer2.activation", 4), abs=1e-5)

    parts = [(place.layer, place.part) for place in location.places]
    assert parts == [("layer1.activation", BEFORE), ("layer1.activation", ACTIVATION), ("layer2.activation", BEFORE)]
    assert location.places[-1].difference == pytest.approx(abs(fault.got - fault.expected))
    assert all(0 < place.limit < 1e-4 for place in location.places)
    assert json.loads(json.dumps(location.to_dict()))["fault"]["neuron"] == 4


def test_a_fault_behind_the_last_layer_is_an_outputs(exported: Path, tmp_path: Path) -> None:
    module = small()
    path = changed(module, exported, tmp_path / "model.onnx", shifted("output.bias", "output", 3))
    fault = located(module, path, normal(9, 6)).fault
    assert fault is not None
    assert (fault.layer, fault.part, fault.neurons, fault.activation) == ("output", OUTPUT, (3,), None)


@pytest.mark.parametrize("batch", [None, 4])
def test_the_example_that_breaks_is_named(batch: int | None, tmp_path: Path) -> None:
    """Of ten examples the last one alone has values above the 6 that was planted; batches are filled up with copies."""
    module, x = small(), normal(10, 6)
    x[9] *= 100
    path = export(module, tmp_path / "model.onnx", x, batch=batch, layout="sorted")

    def clipped(model: Export) -> None:
        model.insert(model.z("layer2"), "Clip", "", model.constant("six", np.float32(6)))

    fault = located(module, changed(module, path, path, clipped), x).fault
    assert fault is not None
    assert (fault.layer, fault.part) == ("layer2.activation", BEFORE)
    assert (fault.example, fault.examples) == (9, 1)
    assert fault.got == pytest.approx(12 * step(module, "layer2.activation", fault.neuron))
    x[0] *= 100
    both = located(module, path, x).fault
    assert both is not None
    assert both.examples == 2


def test_the_example_of_a_step_is_named(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module, x = Steps(transposed=False).eval(), normal(10, 4, 6)
    x[5, 2] *= 100
    path = export(module, tmp_path / "model.onnx", x, layout="scatter")

    def clipped(model: Export) -> None:
        model.insert(model.z("first"), "Clip", "", model.constant("six", np.float32(6)))

    fault = located(module, changed(module, path, path, clipped), x).fault
    assert fault is not None
    assert (fault.layer, fault.part, fault.example, fault.examples) == ("activation", BEFORE, 5, 1)


def test_the_channel_of_a_convolution_is_named(tmp_path: Path) -> None:
    module, x = convolutional(), normal(5, 2, 8, 8)
    path = export(module, tmp_path / "model.onnx", x, layout="sorted")
    changed(module, path, path, shifted("block2.conv.bias", "block2", 7))
    fault = located(module, path, x).fault
    assert fault is not None
    assert (fault.layer, fault.part, fault.neurons, fault.examples) == ("block2.activation", BEFORE, (7,), 5)
    assert fault.activation == activation_of(module, "block2.activation", 7)
    assert fault.got - fault.expected == pytest.approx(step(module, "block2.activation", 7), abs=1e-5)


@pytest.mark.parametrize(("linear", "places"), [("first", 1), ("second", 3), ("last", 5)])
def test_both_calls_of_a_layer_are_places(linear: str, places: int, tmp_path: Path) -> None:
    torch.manual_seed(0)
    module, x = Twice().eval(), normal(9, 6)
    path = export(module, tmp_path / "model.onnx", x, layout="sorted")
    location = located(module, changed(module, path, path, shifted(f"{linear}.bias", linear, 2)), x)
    assert location.fault is not None
    assert (location.fault.layer, location.fault.neurons) == ("output" if linear == "last" else "activation", (2,))
    assert len(location.places) == places


# --- what can't be located


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "does not say where its layers are; export it again"),
        ({"neurons": (0,) * 12}, "the metadata of 'layer1.activation' do not fit its graph"),
        ({"neurons": tuple(range(11))}, "the metadata of 'layer1.activation' do not fit its graph"),
        ({"kind": (99,) * 12}, "the metadata of 'layer1.activation' do not fit its graph"),
        ({"kind": (0,) * 11, "neurons": tuple(range(11))}, "the metadata of 'layer1.activation' do not fit its graph"),
        ({"kinds": ()}, "the metadata of 'layer1.activation' do not fit its graph"),
        ({"z": "absent"}, "no value 'absent'"),
        ({"h": "layer2/linear/Gemm"}, "the metadata of 'layer1.activation' do not fit its graph"),
    ],
)
def test_damaged_metadata_are_told(fields: dict[str, Any], message: str, exported: Path, tmp_path: Path) -> None:
    path = with_provenance(exported, tmp_path / "model.onnx", **fields)
    with pytest.raises(InputError, match=message):
        located(small(), path, normal(9, 6))


def test_a_file_of_another_tool_is_refused(exported: Path, tmp_path: Path) -> None:
    proto = onnx.load(exported)
    proto.ClearField("metadata_props")
    onnx.save(proto, tmp_path / "model.onnx")
    with pytest.raises(InputError, match="does not say where its layers are"):
        located(small(), tmp_path / "model.onnx", normal(9, 6))


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ((6, 12, 8, 4), r"layer2.activation has the shape \(9, 9\) in .*, \(9, 8\) in the reference"),
        ((6, 12, 9, 3), r"output has the shape \(9, 4\) in .*, \(9, 3\) in the reference"),
        ((6, 12, 9, 4, 4), "is it the same network"),
        ((6, 12, 4), "is it the same network"),
    ],
)
def test_another_network_is_told(sizes: tuple[int, ...], message: str, exported: Path) -> None:
    other = mlp(sizes, lambda i: choice(sizes[i], PAPER_POOL, i))
    with pytest.raises(InputError, match=message):
        located(other, exported, normal(9, 6))


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ([], "needs at least one example"),
        ([normal(0, 6)], "needs at least one example"),
        ([normal(9, 6), normal(8, 6)], "as many of each input"),
        ([normal(9, 6), normal(9, 6)], "expects 1 inputs, got 2"),
        ([normal(9, 7)], "expects an input of shape"),
    ],
)
def test_inputs_that_do_not_fit_are_told(inputs: list[Array], message: str, exported: Path) -> None:
    with pytest.raises(InputError, match=message):
        located(small(), exported, *inputs)
