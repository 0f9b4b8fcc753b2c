"""Networks other than the multilayer perceptron, through every command that reads one."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn

from smx import sorting
from smx.architecture import Architecture
from smx.data.dataset import build
from smx.errors import InputError
from smx.layers import Mixed
from smx.modelfile import SavedModel
from smx.saving import save
from tests.conftest import all_refused, refused, smx, smx_many

EPOCHS = ("--phase1-epochs", "2", "--phase2-epochs", "8", "--lr", "0.01", "--batch-size", "32", "--device", "cpu")
NETWORK = """
import torch.nn.functional as F
from torch import nn

class Net(nn.Module):
    def __init__(self, input_shape, num_classes):
        super().__init__()
        self.conv = nn.Conv2d(input_shape[0], 6, 3, padding=1)
        self.norm = nn.BatchNorm2d(6)
        self.out = nn.Linear(6, num_classes)

    def forward(self, x):
        return self.out(F.relu(self.norm(self.conv(x))).mean((2, 3)))

def narrow():
    return nn.Sequential(nn.Flatten(), nn.LazyLinear(2), nn.ReLU())
"""


def colours(examples: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Noisy images (B, 8, 6, 3), whose class is the channel that is brightest."""
    random = np.random.default_rng(0)
    y = np.arange(examples) % 3
    x = random.integers(0, 120, (examples, 8, 6, 3))
    x[np.arange(examples), :, :, y] += 130
    return x.astype(np.uint8), y


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a user's data and network, and with images of the three colours in turn, twice."""
    folder = tmp_path_factory.mktemp("networks")
    x, y = colours(300)
    (folder / "pictures").mkdir()
    for i, image in enumerate(x[:6]):
        Image.fromarray(image).save(folder / "pictures" / f"{i}.png")
    np.save(folder / "x.npy", x[:6])
    np.savez(folder / "colours.npz", x=x, y=y, names=["red", "green", "blue"])
    np.savez(folder / "flat.npz", x=x.reshape(300, -1), y=y)
    (folder / "mine.py").write_text(NETWORK)
    return folder


def runs(folder: Path, *commands: tuple[str | Path, ...]) -> list[Any]:
    """Run commands in the folder; return the JSON of each."""
    results = smx_many(*((*command, "--json", "-") for command in commands), cwd=folder)
    assert not any(result.returncode for result in results), results
    return [json.loads(result.stdout) for result in results]


SAMPLES, COLOURS = ("pictures", "x.npy"), ["red", "green", "blue"] * 2


@pytest.mark.long
def test_a_cnn_goes_the_whole_way(folder: Path) -> None:
    saved = "runs/colours-cnn-smartmixed/model.pt"
    candidates = ("--layouts", "", "--baselines", "relu", "--pytorch", "eager", "--batch-sizes", "2", "--rounds", "2")
    trained, inspected, report, file, verified, benched, *predicted = runs(
        folder,
        ("train", "--data", "colours.npz", "--model", "cnn", *EPOCHS),
        ("inspect", saved),
        ("export", saved, "cnn.onnx", "--layout", "sorted"),
        ("inspect", "cnn.onnx"),
        ("verify", saved, "cnn.onnx", "--batch-sizes", "1,16"),
        ("bench", saved, "cnn.onnx", *candidates),
        *(("predict", "cnn.onnx", sample) for sample in SAMPLES),
    )
    assert trained["out"] == "runs/colours-cnn-smartmixed"
    assert trained["metrics"]["phase2"]["test_accuracy"] > 0.9
    assert inspected["architecture"] == "cnn 3x8x6-16-32-64-3"
    layers = {layer["name"]: layer["neurons"] for layer in inspected["layers"]}
    assert layers == {"layer1.activation": 16, "layer2.activation": 32, "layer3.activation": 64}
    assert "ScatterElements" not in report["operators"]
    assert file["inputs"][0].endswith("tensor(float) ['batch', 3, 8, 6]")
    assert verified["passed"]
    assert {row["name"] for row in benched["candidates"]} == {"relu", "cnn", "pytorch"}
    assert [[row["class"] for row in found["predictions"]] for found in predicted] == [COLOURS] * 2


def test_a_users_network_goes_the_whole_way(folder: Path) -> None:
    """And its file takes the images as they are, with their channels last."""
    saved = "runs/colours-Net-smartmixed/model.pt"
    trained, _, inspected, verified, *predicted = runs(
        folder,
        ("train", "--data", "colours.npz", "--model", "mine:Net", *EPOCHS),
        ("export", saved, "Net.onnx", "--normalize", "--trust-code"),
        ("inspect", "Net.onnx"),
        ("verify", saved, "Net.onnx", "--batch-sizes", "1,16", "--trust-code"),
        *(("predict", "Net.onnx", sample) for sample in SAMPLES),
    )
    assert trained["out"] == "runs/colours-Net-smartmixed"
    assert trained["metrics"]["phase2"]["test_accuracy"] > 0.9
    assert inspected["inputs"][0].endswith("tensor(uint8) ['batch', 8, 6, 3]")
    assert verified["passed"]
    assert [[row["class"] for row in found["predictions"]] for found in predicted] == [COLOURS] * 2
    refused(smx("export", saved, "no.onnx", cwd=folder), 2, "names code of yours, mine:Net; give --trust-code")


def test_a_network_that_only_the_settings_name_needs_trust(folder: Path, tmp_path: Path) -> None:
    out = ("--out", "runs/named")
    (folder / "named.toml").write_text('data = "colours.npz"\nmodel = "mine:Net"\nphase1_epochs = 1\nphase2_epochs = 1')
    named, resumed = ("train", "--config", "named.toml", *out), ("train", "--resume", *out)
    untrusted, first, again, trusted = smx_many(
        named, (*named, "--trust-code"), resumed, (*resumed, "--model", "mine:Net"), cwd=folder
    )
    refused(untrusted, 2, "the settings name code of yours, mine:Net; give --trust-code to run it")
    refused(again, 2, "the settings name code of yours, mine:Net")
    assert (first.returncode, trusted.returncode) == (0, 0), (first, trusted)
    (tmp_path / "mine.py").write_text("raise SystemExit(9)")
    shown = smx("inspect", folder / "runs/named/model.pt", cwd=tmp_path)
    assert (shown.returncode, "mine:Net" in shown.stdout) == (0, True), "looking runs no code"


def test_a_baseline_of_a_users_network_has_one_activation(folder: Path) -> None:
    options = ("--model", "mine:Net", "--activation", "tanh", "--out", "runs/tanh")
    runs(folder, ("train", "--data", "colours.npz", *options, *EPOCHS))
    content = torch.load(folder / "runs" / "tanh" / "model.pt", weights_only=True)
    assert content["architecture"] == {
        "kind": "factory", "name": "mine:Net", "input_shape": [3, 8, 6], "num_classes": 3,
    }  # fmt: skip
    assert content["pool"] == ["tanh"]
    assert {name: choice.tolist() for name, choice in content["choices"].items()} == {"relu": [0] * 6}


@pytest.mark.parametrize(("kind", "input_shape"), [("mlp", (144,)), ("cnn", (3, 8, 6))])
def test_examples_of_other_data_come_in_the_models_order(kind: str, input_shape: tuple[int, ...]) -> None:
    """Channels first, and divided by 200, for a model of images with channels last that were divided by 255."""
    x, y = colours(30)
    architecture = Architecture(kind=kind, input_shape=input_shape, num_classes=3)
    own = {"sample_shape": (8, 6, 3), "maximum": 255.0}
    model = SavedModel(architecture=architecture, pool=(), choices={}, weights={}, data=own, training={}, metrics={})
    x = np.minimum(x, 200)
    other = build(
        "other", x.transpose(0, 3, 1, 2), y, test=(x.transpose(0, 3, 1, 2), y), maximum=200.0, class_names=("",) * 3
    )
    np.testing.assert_array_equal(model.examples(other, other.test.x, raw=True), x)
    expected = (x / 200).transpose(0, 3, 1, 2) if kind == "cnn" else (x / 200).reshape(30, 144)
    np.testing.assert_allclose(model.examples(other, other.test.x, raw=False), expected, rtol=1e-6)
    with pytest.raises(InputError, match="the values of other are no whole numbers from 0 to 255"):
        model.examples(replace(other, maximum=1.0), other.test.x, raw=True)


def test_networks_that_cant_be_trained(folder: Path) -> None:
    cases = [
        (("--model", "resnet"), "model must be mlp, cnn or module:factory, got 'resnet'"),
        (("--model", "mine:narrow"), "got shape (2, 2)"),
        (("--model", "cnn", "--hidden", "8,8"), "hidden is for the mlp, and the model is cnn; leave it out"),
        (("--model", "cnn", "--data", "flat.npz"), "the cnn takes images of 4x4 or more"),
    ]
    command = ("train", "--data", "colours.npz", "--out", "runs/refused")
    all_refused(*(((*command, *options), part) for options, part in cases), cwd=folder)
    assert not (folder / "runs" / "refused").exists()


def test_axes_of_any_length(tmp_path: Path) -> None:
    """A network of images, saved so that it takes them in any size, through export and verify."""
    torch.manual_seed(0)
    conv, norm = nn.Conv2d(1, 6, 3, padding=1), nn.BatchNorm2d(6)
    pooled = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 2))
    net = sorting.sort(
        nn.Sequential(conv, norm, Mixed(torch.arange(6) % 3), pooled), example_input=torch.ones(1, 1, 8, 8)
    )
    save(net.eval(), tmp_path / "net.pt", example_input=torch.zeros(1, 1, 8, 8), dynamic=(2, 3))
    axes = ("--dynamic", "image:2=height", "--dynamic", "image:-1=width")
    names = ("--input-name", "image", "--output-name", "logits")
    _, inspected, verified = runs(
        tmp_path,
        ("export", "net.pt", "net.onnx", "--layout", "sorted", *axes, *names),
        ("inspect", "net.onnx"),
        ("verify", "net.pt", "net.onnx", "--batch-sizes", "1,16"),
    )
    assert inspected["inputs"] == ["image tensor(float) ['batch', 1, 'height', 'width']"]
    assert inspected["outputs"] == ["logits tensor(float) ['batch', 2]"]
    compared = {row["inputs"] for row in verified["comparisons"]}
    assert {name for name in compared if "," in name} == {
        "random, height 16", "random, height 4", "random, width 16", "random, width 4",
    }  # fmt: skip
    assert verified["passed"]
    export = ("export", "net.pt", "other.onnx")
    all_refused(
        ((*export, "--dynamic", "image"), "expected INPUT:AXIS=NAME, as in input:1=time, got 'image'"),
        ((*export, "--dynamic", "input:2=a", "--dynamic", "input:2=b"), "input:2 has two names, a and b"),
        ((*export, "--dynamic", "image:2=a"), "dynamic names an unknown input 'image'; known are input"),
        ((*export, "--dynamic", "input:1=a"), "takes a, axis 1 of input, in the length 1 alone"),
        ((*export, "--output-name", "a", "--output-name", "b"), "the model has 1 outputs, output, got 2 output names"),
        cwd=tmp_path,
    )
    assert not (tmp_path / "other.onnx").exists()
