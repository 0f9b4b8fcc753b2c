"""The mutation test of the checker: planted faults are caught by the comparison, and located where they are."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from smx.export import export_onnx
from smx.export.reference import in_parts
from smx.layers import Mixed
from smx.runtime import Session
from smx.runtime.parity.check import check_parity
from smx.runtime.parity.inputs import synthetic_inputs
from smx.runtime.parity.locate import Fault, locate
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
            made[network, layout] = Export.of(module, onnx.load(path))
        return made[network, layout]

    return export


@pytest.fixture(scope="module")
def outcomes(
    exports: Callable[[str, str], Export], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[Kind, str], Outcome]:
    """Return what plants a fault and looks for it, once."""
    folder = tmp_path_factory.mktemp("faults")
    made: dict[tuple[str, str], Outcome] = {}

    def outcome(kind: Kind, layout: str) -> Outcome:
        if (kind.name, layout) not in made:
            made[kind.name, layout] = look_for(kind, exports(kind.network, layout), folder / "planted.onnx")
        return made[kind.name, layout]

    return outcome


def inputs_of(network: str) -> dict[str, Array]:
    """Return data, and what `smx verify` adds to them."""
    _, shape = NETWORKS[network]
    data = np.random.default_rng(0).normal(size=(64, *shape)).astype(np.float32)
    return {"data": data, **synthetic_inputs(shape, examples=32)}


def differing(module: nn.Module, path: Path, inputs: dict[str, Array]) -> list[str]:
    """Return the sets of inputs on which a file is not what PyTorch is, by the rule of `smx verify`."""

    def pytorch(x: Array) -> Array:
        with torch.no_grad():
            return module(torch.from_numpy(x)).numpy()  # type: ignore[no-any-return]

    report = check_parity(pytorch, Session(path, threads=1), inputs)
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
def test_a_fault_is_caught_and_located(name: str, layout: str, outcomes: Callable[[Kind, str], Outcome]) -> None:
    outcome = outcomes(KINDS[name], layout)
    assert outcome.caught
    assert outcome.exact, outcome


def test_the_whole_catalogue(outcomes: Callable[[Kind, str], Outcome]) -> None:
    found = {kind.name: [outcomes(kind, layout) for layout in kind.layouts] for kind in KINDS.values()}
    caught = [name for name, all_layouts in found.items() if all(outcome.caught for outcome in all_layouts)]
    exact = [name for name in caught if all(outcome.exact for outcome in found[name])]
    assert len(found) >= 30
    assert len(caught) == len(found), found.keys() - caught
    assert len(exact) >= 28
    assert len(exact) >= len(found) - 2, found.keys() - exact
