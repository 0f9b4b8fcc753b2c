"""A healthy model leaves its reference nowhere, whatever the network, the layout, the opset and the precision are."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from torch import Tensor, nn

import smx
from smx.export import export_onnx
from smx.export.compiler import LAYOUTS
from smx.export.reference import in_parts
from smx.layers import Mixed
from smx.models import mlp
from smx.paper import PAPER_POOL
from smx.runtime.parity.inputs import synthetic_inputs
from smx.runtime.parity.locate import Location, locate
from tests.export.test_random_networks import networks
from tests.faults import Array, choice, one_thread

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


# --- healthy models


@settings(max_examples=2, deadline=None, suppress_health_check=list(HealthCheck))
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
