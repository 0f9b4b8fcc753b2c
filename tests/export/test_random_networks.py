"""Random architectures, pools and choices: what is exported gives PyTorch's answers, in two runtimes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

import smx
from smx.activations import known
from smx.export import export_onnx
from smx.runtime import Session, check_parity
from smx.runtime.parity import Array, probes
from tests import reference


@st.composite
def mixed_layers(draw: st.DrawFn, neurons: int, dim: int = 1) -> smx.Mixed:
    """Draw one group, all groups, a few (empty ones among them), or for every neuron its own."""
    pool = tuple(draw(st.lists(st.sampled_from(known()[:11]), min_size=1, max_size=6, unique=True)))
    highest = draw(st.integers(0, len(pool) - 1))
    kind = draw(st.sampled_from(["one", "all", "random"]))
    if kind == "one":
        choice = [highest] * neurons
    elif kind == "all":
        choice = [i % len(pool) for i in range(neurons)]
    else:
        choice = draw(st.lists(st.integers(0, highest), min_size=neurons, max_size=neurons))
    return smx.Mixed(choice, pool, dim)


@st.composite
def networks(draw: st.DrawFn) -> tuple[nn.Module, tuple[int, ...]]:
    """Draw a network and the shape of one of its examples."""
    torch.manual_seed(draw(st.integers(0, 2**31)))
    width, classes = draw(st.integers(1, 9)), draw(st.integers(1, 4))
    parts: list[nn.Module] = []
    if draw(st.booleans()):
        channels, size = draw(st.integers(1, 3)), draw(st.integers(3, 5))
        parts += [nn.Conv2d(channels, width, 3, padding=1), nn.BatchNorm2d(width), draw(mixed_layers(width))]
        parts += [nn.Flatten()]
        shape: tuple[int, ...] = (channels, size, size)
        features = width * size * size
    else:
        features = draw(st.integers(1, 6))
        shape = (features,)
    for _ in range(draw(st.integers(0, 2))):
        neurons = draw(st.integers(1, 12))
        parts += [nn.Linear(features, neurons), draw(mixed_layers(neurons, draw(st.sampled_from([1, -1]))))]
        features = neurons
    return nn.Sequential(*parts, nn.Linear(features, classes)).eval(), shape


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(drawn=networks())
def test_export_gives_pytorchs_answers(drawn: tuple[nn.Module, tuple[int, ...]], tmp_path_factory: object) -> None:
    net, shape = drawn
    path = Path(tmp_path_factory.mktemp("random")) / "m.onnx"  # type: ignore[attr-defined]
    export_onnx(net, path, example_input=torch.zeros(1, *shape))

    def pytorch(x: Array) -> Array:
        with torch.no_grad():
            return net(torch.from_numpy(x)).numpy()  # type: ignore[no-any-return]

    inputs = probes(shape, examples=32)
    report = check_parity(pytorch, Session(path), inputs, atol=1e-5, batch_sizes=(1, 32))
    assert report.passed, report
    got = reference.evaluate_onnx(str(path), input=inputs["random"])
    expected = pytorch(inputs["random"])
    scale = max(1.0, float(np.abs(expected).max()))
    np.testing.assert_allclose(got, expected, atol=1e-5 * scale, rtol=1e-4)
