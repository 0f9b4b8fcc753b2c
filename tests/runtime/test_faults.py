"""The mutation test of the checker: planted faults are caught by the comparison, and located where they are."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import nn

from smx.errors import ParityError
from smx.export import export_onnx
from smx.export.reference import in_parts
from smx.layers import Mixed
from smx.runtime import Session
from smx.runtime.parity.check import check_parity
from smx.runtime.parity.inputs import synthetic_inputs
from smx.runtime.parity.locate import Fault, locate
from tests.edited import loaded
from tests.faults import KINDS, LAYOUTS, NETWORKS, Array, Export, Kind, Planted, one_thread


class Outcome(NamedTuple):
    """What became of a fault: the sets of inputs that caught it, what was located, and what was to be."""

    caught: list[str]
    fault: Fault | None
    planted: Planted
    activation: str | None

    @property
    def exact(self) -> bool:
        """Whether the place, its neurons and the activation of the worst of them are the planted ones."""
        fault, planted = self.fault, self.planted
        return (
            fault is not None
            and (fault.layer, fault.part, fault.activation) == (planted.layer, planted.part, self.activation)
            and planted.neurons in (None, set(fault.neurons))
        )


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    with one_thread():
        yield


@pytest.fixture(scope="module")
def exports(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], Export]:
    """Return what exports a network in a layout, once."""
    folder = tmp_path_factory.mktemp("exports")
    made: dict[tuple[str, str], Export] = {}

    def export(network: str, layout: str) -> Export:
        if (network, layout) not in made:
            build, shape = NETWORKS[network]
            module, path = build(), folder / f"{network}-{layout}.onnx"
            export_onnx(module, path, example_input=torch.zeros(1, *shape), layout=layout)
            made[network, layout] = Export.of(module, loaded(path))
        return made[network, layout]

    return export


def inputs_of(network: str) -> dict[str, Array]:
    """Return data, and what `smx verify` adds to them."""
    _, shape = NETWORKS[network]
    data = np.random.default_rng(0).normal(size=(64, *shape)).astype(np.float32)
    return {"data": data, **synthetic_inputs(shape, examples=32)}


def pytorch(module: nn.Module) -> Callable[[Array], Array]:
    def run(x: Array) -> Array:
        with torch.no_grad():
            return module(torch.from_numpy(x)).numpy()  # type: ignore[no-any-return]

    return run


def differing(module: nn.Module, path: Path, inputs: dict[str, Array]) -> list[str]:
    """Return the sets of inputs on which a file is not what PyTorch is, by the rule of `smx verify`."""
    report = check_parity(pytorch(module), Session(path, threads=1), inputs)
    return [comparison.inputs for comparison in report.comparisons if not comparison.passed]


def look_for(kind: Kind, healthy: Export, path: Path) -> Outcome:
    """Plant a fault, compare, and locate it on the first inputs that differ."""
    model, inputs = healthy.copy(), inputs_of(kind.network)
    planted = kind.plant(model)
    path.write_bytes(model.proto.SerializeToString())
    caught = differing(model.module, path, inputs)
    assert said(model) != said(healthy.copy())
    if not caught:
        return Outcome(caught, None, planted, None)
    fault = locate(path, in_parts(model.module), in_parts(model.module, torch.float64), inputs[caught[0]]).fault
    return Outcome(caught, fault, planted, activation_of(healthy.module, fault) if fault else None)


def said(model: Export) -> tuple[bytes, str, list[Array]]:
    """Return all that a fault can change."""
    values = [value.numpy().tobytes() for value in model.module.state_dict().values()]
    return model.proto.SerializeToString(deterministic=True), repr(model.module), values


def activation_of(module: nn.Module, fault: Fault) -> str | None:
    """Return which activation PyTorch has where the fault was found."""
    if fault.layer == "output":
        return None
    mixed = module.get_submodule(fault.layer)
    assert isinstance(mixed, Mixed)
    return mixed.pool[int(mixed.choice[fault.neuron])].name


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("network", NETWORKS)
def test_without_a_fault_nothing_is_caught_or_located(
    network: str, layout: str, exports: Callable[[str, str], Export], tmp_path: Path
) -> None:
    model, inputs = exports(network, layout), inputs_of(network)
    path = tmp_path / "healthy.onnx"
    path.write_bytes(model.proto.SerializeToString())
    assert not differing(model.module, path, inputs)
    for x in inputs.values():
        location = locate(path, in_parts(model.module), in_parts(model.module, torch.float64), x)
        assert location.fault is None, location


@pytest.mark.parametrize(
    ("name", "layout"), [(kind.name, layout) for kind in KINDS.values() for layout in kind.layouts]
)
def test_a_fault_is_caught_and_located(
    name: str, layout: str, exports: Callable[[str, str], Export], tmp_path: Path
) -> None:
    outcome = look_for(KINDS[name], exports(KINDS[name].network, layout), tmp_path / "planted.onnx")
    assert outcome.caught
    assert outcome.exact, outcome


def network(factor: float) -> nn.Module:
    torch.manual_seed(0)
    last = nn.Linear(12, 3)
    last.weight.data *= factor
    return nn.Sequential(nn.Linear(6, 12), Mixed([0, 1, 2, 3] * 3, ("relu", "tanh", "elu", "gelu")), last).eval()


@pytest.mark.parametrize("factor", [1.0, 1e4])
def test_export_and_comparison_have_one_tolerance(factor: float, tmp_path: Path) -> None:
    """What one accepts, the other accepts; a fault in one weight is refused by both."""
    module = network(factor)
    report = export_onnx(module, tmp_path / "m.onnx", example_input=torch.randn(4, 6))
    inputs = synthetic_inputs((6,))

    file = Session(tmp_path / "m.onnx")
    found = check_parity(pytorch(module), file, inputs)
    assert found.passed, found
    assert file.info is not None
    assert (found.atol, found.rtol) == (file.info.tolerance["atol"], file.info.tolerance["rtol"])
    assert report.max_abs <= 10 * file.info.tolerance["max_abs"]
    module[2].weight.data[0, 0] *= 1.02  # type: ignore[index]
    assert not check_parity(pytorch(module), file, inputs).passed
    with pytest.raises(ParityError):
        export_onnx(network(factor), tmp_path / "m.onnx", example_input=torch.randn(4, 6), atol=0, rtol=0)
