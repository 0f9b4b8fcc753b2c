"""Networks that only the caller knows: no data set, no `model.pt`, several inputs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import smx
from smx.errors import InputError
from tests.conftest import refused, smx_many


def small() -> nn.Sequential:
    torch.manual_seed(0)
    choice = torch.arange(12) % 6
    return nn.Sequential(nn.Linear(5, 12), smx.Mixed(choice), nn.Linear(12, 3)).eval()


class TwoInputs(nn.Module):
    """Indices of an embedding, which may not be other numbers, and floating values."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embedding = nn.Embedding(4, 6)
        self.mixed = smx.Mixed(torch.tensor([0, 1, 2, 3, 4, 5]))

    def forward(self, index: Tensor, x: Tensor) -> Tensor:
        h: Tensor = self.mixed(self.embedding(index) + x)
        return h


def export(module: nn.Module, folder: Path, example: Tensor | tuple[Tensor, ...]) -> Path:
    smx.export.export_onnx(module, folder / "m.onnx", example_input=example)
    return folder / "m.onnx"


def test_a_module_is_verified_and_its_fault_located(tmp_path: Path) -> None:
    net, x = small(), torch.rand(2, 5)
    path = export(net, tmp_path, x)
    seen: list[str] = []
    report = smx.verify(net, path, example_input=x, on_progress=lambda what, done, total: seen.append(what))
    assert report.passed
    assert report.location is None
    names = {row.inputs for row in report.comparisons}
    assert names == {"random", "zeros", "large", "large mixed", "denormal", "kinks"}
    assert "random, batch 16" in seen
    with torch.no_grad():
        net.get_parameter("0.bias")[7] += 0.01
    broken = smx.verify(net, path, example_input=x, data=np.zeros((3, 5), np.float32), locate=True)
    assert not broken.passed
    assert broken.location is not None
    assert broken.location.fault is not None
    assert (broken.location.fault.layer, broken.location.fault.neuron) == ("1", 7)
    assert broken.to_dict()["location"]["inputs"] == "given"


def test_a_network_of_several_inputs_is_verified_on_valid_ones(tmp_path: Path) -> None:
    example = (torch.tensor([[0], [3], [1]])[:, 0], torch.rand(3, 6))
    net = TwoInputs().eval()
    report = smx.verify(net, export(net, tmp_path, example), example_input=example, batch_sizes=(1, 7))
    assert report.passed
    assert {(row.inputs, row.batch_size) for row in report.comparisons} == {
        (name, size) for name in ("example", "random") for size in (1, 7)
    }


class ByName(nn.Module):
    """An argument by name, one that is no tensor, and a dict of outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.body = small()

    def forward(self, *, x: Tensor, mask: Tensor, double: bool) -> dict[str, Tensor]:
        y = self.body(x.masked_fill(mask, 0.0).flatten(0, 1)).unflatten(0, x.shape[:2]).mean(1)
        return {"logits": 2 * y if double else y, "mean": x.mean(1)}


def test_arguments_by_name_other_lengths_and_a_fault(tmp_path: Path) -> None:
    net, x = ByName().eval(), torch.rand(2, 4, 5)
    example = {"x": x, "mask": x > 0.5, "double": True}
    axes = {"x": {1: "time"}, "mask": {1: "time"}}
    smx.export.export_onnx(net, tmp_path / "m.onnx", example_input=example, layout="sorted", dynamic=axes)
    report = smx.verify(net, tmp_path / "m.onnx", example_input=example, batch_sizes=(1, 16))
    assert report.passed
    assert {(row.inputs, row.output) for row in report.comparisons} == {
        (name, output)
        for name in ("example", "random", "random, time 8", "random, time 2")
        for output in ("logits", "mean")
    }
    net.get_parameter("body.0.bias").data[7] += 0.1
    broken = smx.verify(net, tmp_path / "m.onnx", example_input=example, locate=True)
    assert broken.location is not None
    assert broken.location.fault is not None
    assert (broken.location.fault.layer, broken.location.fault.neuron) == ("body.1", 7)


@pytest.mark.long
def test_a_module_is_benched_beside_its_baselines(tmp_path: Path) -> None:
    """In another process, because this one has loaded torch."""
    net = small()
    report = smx.bench(net, example_input=torch.rand(1, 5), baselines=["relu"], batch_sizes=[2], rounds=2)
    assert report.names == ("scatter", "sorted", "relu")
    assert report.baseline == "relu"
    assert report.passed
    assert "profiles" not in report.to_dict()
    plain = nn.Sequential(nn.Linear(5, 2))
    with pytest.raises(InputError, match="Sequential has no mixed layers that relu could replace"):
        smx.bench(plain, example_input=torch.rand(1, 5), baselines=["relu"])
    with pytest.raises(InputError, match="a module needs example_input=x"):
        smx.bench(net)
    with pytest.raises(InputError, match=r"only a MODEL\.pt runs in PyTorch"):
        smx.bench(net, example_input=torch.rand(1, 5), pytorch=["eager"])
    with pytest.raises(InputError, match="a module takes data as arrays"):
        smx.verify(net, export(net, tmp_path, torch.rand(1, 5)), example_input=torch.rand(1, 5), data="digits")


def test_what_smx_save_writes_goes_through_the_commands(tmp_path: Path) -> None:
    net, x, saved = small(), torch.rand(1, 5), tmp_path / "net.pt"
    path = export(net, tmp_path, x)
    smx.save(net, saved, example_input=x, class_names=("a", "b", "c"))
    with torch.no_grad():
        net.get_parameter("0.bias")[7] += 0.01
    smx.save(net, tmp_path / "other.pt", example_input=x)
    few = ("--baselines", "relu", "--pytorch", "eager", "--batch-sizes", "1", "--rounds", "2", "--json", "-")
    again = tmp_path / "again.onnx"
    good, bad, benched, made, low, shown = smx_many(
        ("verify", saved, path, "--locate", "--json", "-"),
        ("verify", tmp_path / "other.pt", path, "--locate", "--json", tmp_path / "bad.json"),
        ("bench", saved, *few),
        ("export", saved, again, "--layout", "sorted"),
        ("export", saved, again, "--precision", "int8"),
        ("inspect", saved),
    )
    assert not any(each.returncode for each in (good, benched, made, shown)), (good, benched, made, shown)
    report = json.loads(good.stdout)
    assert {row["inputs"] for row in report["comparisons"]} >= {"random", "kinks"}
    assert (report["location"], "located" in good.stderr) == (None, False)
    fault = json.loads((tmp_path / "bad.json").read_text())["location"]["fault"]
    assert (fault["layer"], fault["neurons"], fault["activation"]) == ("1", [7], "sigmoid")
    assert bad.returncode == 3, bad.stderr
    assert "located: 1, neuron 7 (sigmoid), before the activation: on example" in bad.stdout
    assert [row["name"] for row in json.loads(benched.stdout)["results"]] == ["scatter", "sorted", "relu", "pytorch"]
    refused(low, 2, "names no data set to try int8 on")


def test_arrays_are_classified(tmp_path: Path) -> None:
    net, x = small(), np.random.default_rng(0).random((6, 5), np.float32)
    path = export(net, tmp_path, torch.from_numpy(x))
    found = smx.classify(path, x)
    with torch.no_grad():
        expected = net.double()(torch.from_numpy(x).double()).softmax(1).numpy()
    np.testing.assert_allclose(found.probabilities, expected, atol=1e-6)
    assert found.indices.tolist() == expected.argmax(1).tolist()
    assert found.classes == tuple(str(index) for index in found.indices)
    assert found.examples == ("0", "1", "2", "3", "4", "5")
    empty = smx.classify(path, x[:0])
    assert empty.probabilities.shape == (0, 3)
    assert empty.to_dict()["predictions"] == []
    assert smx.describe(path).layers == ({"name": "1", "neurons": 12, "groups": dict.fromkeys(smx.PAPER_POOL, 2)},)
