"""Random architectures, pools and choices: what is exported gives PyTorch's answers, in two runtimes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import smx
from smx.activations import BUILT_IN
from smx.export import export_onnx
from smx.export.compiler import LAYOUTS
from smx.runtime import Session
from smx.runtime.parity.inputs import synthetic_inputs
from tests.export.networks import agree


@st.composite
def mixed_layers(draw: st.DrawFn, neurons: int, dim: int = 1) -> smx.Mixed:
    """Draw one group, all groups, a few (empty ones among them), or for every neuron its own."""
    pool = tuple(draw(st.lists(st.sampled_from(BUILT_IN), min_size=1, max_size=6, unique=True)))
    highest = draw(st.integers(0, len(pool) - 1))
    kind = draw(st.sampled_from(["one", "all", "random"]))
    if kind == "one":
        choice = [highest] * neurons
    elif kind == "all":
        choice = [i % len(pool) for i in range(neurons)]
    else:
        choice = draw(st.lists(st.integers(0, highest), min_size=neurons, max_size=neurons))
    return smx.Mixed(choice, pool, dim=dim)


class Residual(nn.Module):
    """x + f(x), with whatever f keeps the shape."""

    def __init__(self, *parts: nn.Module) -> None:
        super().__init__()
        self.branch = nn.Sequential(*parts)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.branch(x)  # type: ignore[no-any-return]


@st.composite
def networks(draw: st.DrawFn) -> tuple[nn.Module, tuple[int, ...]]:
    """Draw an MLP, a CNN (residual and depthwise parts) or a transformer's block, and its examples' shape."""
    torch.manual_seed(draw(st.integers(0, 2**31)))
    kind = draw(st.sampled_from(["mlp", "cnn", "transformer"]))
    width, classes = draw(st.integers(1, 9)), draw(st.integers(1, 4))
    parts: list[nn.Module] = []
    if kind == "cnn":
        channels, size = draw(st.integers(1, 3)), draw(st.integers(4, 6))
        parts += [nn.Conv2d(channels, width, 3, padding=1), nn.BatchNorm2d(width), draw(mixed_layers(width))]
        if draw(st.booleans()):
            parts += [
                Residual(nn.Conv2d(width, width, 3, padding=1), draw(mixed_layers(width)), nn.Conv2d(width, width, 1))
            ]
            parts += [draw(mixed_layers(width))]
        if draw(st.booleans()):
            parts += [nn.Conv2d(width, width, 3, padding=1, groups=width), draw(mixed_layers(width))]
        pool = draw(st.sampled_from([nn.MaxPool2d(2), nn.AvgPool2d(2), nn.AdaptiveAvgPool2d(1)]))
        parts += [pool, nn.Flatten(), nn.Dropout(0.5)]
        shape: tuple[int, ...] = (channels, size, size)
        features = width if isinstance(pool, nn.AdaptiveAvgPool2d) else width * (size // 2) ** 2
    elif kind == "transformer":
        shape, features = (draw(st.integers(2, 4)), width), width
        block = [nn.Linear(width, 2 * width), draw(mixed_layers(2 * width, -1)), nn.Linear(2 * width, width)]
        parts += [nn.LayerNorm(width), Residual(*block)]
    else:
        features = draw(st.integers(1, 6))
        shape = (features,)
    for _ in range(draw(st.integers(0, 2))):
        neurons = draw(st.integers(1, 12))
        parts += [nn.Linear(features, neurons), draw(mixed_layers(neurons, -1 if kind == "transformer" else 1))]
        features = neurons
    return nn.Sequential(*parts, nn.Linear(features, classes)).eval(), shape


def exports_hold(net: nn.Module, shape: tuple[int, ...], folder: Path) -> None:
    """Assert that both layouts give PyTorch's answers, in two runtimes and for any batch."""
    for layout in LAYOUTS:
        path = folder / f"{layout}.onnx"
        export_onnx(net, path, example_input=torch.zeros(1, *shape), layout=layout)
        for name, values in synthetic_inputs(shape, examples=32).items():
            x = torch.from_numpy(values)
            expected = net(x).detach().numpy()
            atol = 1e-5 * max(1.0, float(np.abs(expected).max()))
            np.testing.assert_allclose(Session(path).run(values), expected, atol=atol, rtol=1e-4)
            if name == "random":
                agree(path, net, x[:4], atol=atol)


@settings(max_examples=3, deadline=None, suppress_health_check=list(HealthCheck))
@given(drawn=networks())
def test_export_gives_pytorchs_answers(
    drawn: tuple[nn.Module, tuple[int, ...]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    exports_hold(*drawn, tmp_path_factory.mktemp("random"))


@pytest.mark.long
@pytest.mark.timeout(3600)
@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck), derandomize=False)
@given(drawn=networks())
def test_export_gives_pytorchs_answers_for_many(
    drawn: tuple[nn.Module, tuple[int, ...]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    exports_hold(*drawn, tmp_path_factory.mktemp("random"))
