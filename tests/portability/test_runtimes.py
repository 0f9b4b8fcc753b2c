"""The exported files give PyTorch's answers in other runtimes too, in both layouts and for any batch."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

import smx
from smx import data
from smx.export import export_onnx
from smx.export.compiler import LAYOUTS
from smx.models import mlp
from smx.preprocessing import normalise
from smx.runtime import Session
from tests import reference

Array = NDArray[Any]
HERE = Path(__file__).parent


def require(present: object, otherwise: str) -> None:
    if not present:
        pytest.fail(otherwise, pytrace=False)


def in_onnxruntime(path: Path, batches: list[Array]) -> list[Array]:
    session = Session(path, threads=1)
    return [session.run(x) for x in batches]


def in_reference_evaluator(path: Path, batches: list[Array]) -> list[Array]:
    return [reference.evaluate_onnx(str(path), input=x) for x in batches]


def in_openvino(path: Path, batches: list[Array]) -> list[Array]:
    require(find_spec("openvino"), "openvino is not installed; run: make test-portability")
    # With this package, the mere import of openvino reports to its makers and writes into the home folder.
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
    import openvino

    # Where the processor has bfloat16, OpenVINO computes in it unless told otherwise.
    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    model = openvino.compile_model(path, "CPU", settings)
    return [model(x)[0] for x in batches]


def in_node(path: Path, batches: list[Array]) -> list[Array]:
    require(shutil.which("node"), "node is missing; install Node.js with npm, then run: make test-portability")
    web = HERE / "node_modules" / "onnxruntime-web"
    require(web.is_dir(), "onnxruntime-web is not installed; run: make test-portability")
    source, target = path.with_suffix(".in"), path.with_suffix(".out")
    np.concatenate(batches).tofile(source)
    sizes = [len(x) for x in batches]
    shape, split = (",".join(map(str, numbers)) for numbers in (batches[0].shape[1:], sizes))
    command: list[str | Path] = ["node", HERE / "run.mjs", path, source, target, shape, split]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    return np.split(np.fromfile(target, np.float32).reshape(sum(sizes), -1), np.cumsum(sizes)[:-1])


RUNTIMES: dict[str, Callable[[Path, list[Array]], list[Array]]] = {
    "onnxruntime": in_onnxruntime,
    "reference": in_reference_evaluator,
    "openvino": in_openvino,
    "node": in_node,
}
HEAVY = ("openvino", "node")


@dataclass(frozen=True)
class Network:
    """A network's files by their layout, the images that they are asked about, and PyTorch's answers."""

    files: dict[str, Path]
    x: Array
    logits: Array


@pytest.fixture(scope="module")
def dataset() -> data.Dataset:
    """Return MNIST, or on a machine without it the digits."""
    folder = Path(os.environ.get("SMX_DATA_DIR", "absent"))
    return data.load("mnist", folder) if (folder / "MNIST" / "raw").is_dir() else data.load("digits")


def mixed(neurons: int) -> smx.Mixed:
    return smx.Mixed(torch.randint(len(smx.PAPER_POOL), (neurons,)))


def cnn(size: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Sequential(nn.Conv2d(1, 12, 3, stride=2, padding=1), nn.BatchNorm2d(12), mixed(12), nn.MaxPool2d(2)),
        nn.Sequential(nn.Conv2d(12, 18, 3, padding=1), nn.BatchNorm2d(18), mixed(18), nn.AvgPool2d(2)),
        nn.Sequential(nn.Flatten(), nn.Linear(18 * (size // 8) ** 2, 32), mixed(32), nn.Linear(32, 10)),
    )


@pytest.fixture(scope="module", params=["mlp", "cnn"])
def network(request: pytest.FixtureRequest, dataset: data.Dataset, tmp_path_factory: pytest.TempPathFactory) -> Network:
    """Return a network after a little training: its classes, unlike those of fresh weights, are seldom near a tie."""
    torch.manual_seed(0)
    size = dataset.sample_shape[0]
    sizes = (size * size, 96, 64, 48, 10)
    net = mlp(sizes, lambda i: mixed(sizes[i])) if request.param == "mlp" else cnn(size)
    shape = (size * size,) if request.param == "mlp" else (1, size, size)
    train, labels = (
        normalise(torch.from_numpy(dataset.train.x), dataset.maximum, shape),
        torch.from_numpy(dataset.train.y),
    )
    adam = torch.optim.Adam(net.parameters(), lr=3e-3)
    for _ in range(200):
        batch = torch.randint(len(train), (128,))
        adam.zero_grad()
        nn.functional.cross_entropy(net(train[batch]), labels[batch]).backward()  # type: ignore[no-untyped-call]
        adam.step()
    x = normalise(torch.from_numpy(dataset.test.x[:1000]), dataset.maximum, shape)
    with torch.no_grad():
        logits = net.eval()(x).numpy()
    assert np.mean(logits.argmax(1) == dataset.test.y[:1000]) > 0.8
    folder = tmp_path_factory.mktemp(request.param)
    files = {layout: folder / f"{layout}.onnx" for layout in LAYOUTS}
    for layout, path in files.items():
        report = export_onnx(net, path, example_input=x[:1], layout=layout)
        assert {name for layer in report.layers for name in layer.groups} == set(smx.PAPER_POOL)
        assert ("ScatterElements" in report.operators) == (layout == "scatter")
    return Network(files, x.numpy(), logits)


@pytest.mark.parametrize(
    "runtime", [pytest.param(name, marks=[pytest.mark.portability] if name in HEAVY else []) for name in RUNTIMES]
)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_pytorchs_answers(network: Network, layout: str, runtime: str) -> None:
    batches = np.split(network.x, [1, 8])  # three sizes of batch, one after the other in one session
    got = RUNTIMES[runtime](network.files[layout], batches)
    assert [len(logits) for logits in got] == [len(x) for x in batches]
    np.testing.assert_allclose(np.concatenate(got), network.logits, atol=5e-5, rtol=0)
    assert np.array_equal(np.concatenate(got).argmax(1), network.logits.argmax(1))
