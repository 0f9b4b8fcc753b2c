"""`smx.verify` and `smx.classify` of networks that are not of our own training."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import smx
from smx.errors import InputError


def head(inputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, 6), smx.Mixed([0, 1, 2, 0, 1, 2]), nn.Linear(6, 3))


class Pixels(nn.Module):
    """Takes uint8, and divides by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.head = head(64)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.head(x.float().flatten(1) / 255)
        return y


class Direction(nn.Module):
    """Is not defined at 0."""

    def __init__(self) -> None:
        super().__init__()
        self.head = head(4)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.head(x / x.norm(dim=1, keepdim=True))
        return y


def test_a_network_that_takes_raw_values_itself(tmp_path: Path) -> None:
    net, x = Pixels().eval(), torch.randint(0, 256, (5, 1, 8, 8), dtype=torch.uint8)
    smx.save(net, tmp_path / "m.pt", example_input=x, sample_shape=(1, 8, 8))
    smx.export_model(tmp_path / "m.pt", tmp_path / "m.onnx")
    report = smx.verify(tmp_path / "m.pt", tmp_path / "m.onnx")
    assert report.passed
    assert {each.inputs for each in report.comparisons} >= {"random", "zeros"}
    pixels = np.full((8, 8), 128, np.uint8)
    from PIL import Image

    Image.fromarray(pixels).save(tmp_path / "grey.png")
    (by_image, by_array) = (
        smx.classify(tmp_path / "m.onnx", given).probabilities for given in (tmp_path / "grey.png", pixels[None, None])
    )
    np.testing.assert_allclose(by_image, by_array)


def test_what_a_network_is_not_defined_for_is_left_out(tmp_path: Path) -> None:
    smx.save(Direction(), tmp_path / "m.pt", example_input=torch.randn(2, 4))
    smx.export_model(tmp_path / "m.pt", tmp_path / "m.onnx")
    report = smx.verify(tmp_path / "m.pt", tmp_path / "m.onnx")
    assert report.passed
    sets = {each.inputs for each in report.comparisons}
    assert "random" in sets
    assert "zeros" not in sets


def test_a_network_in_float64(tmp_path: Path) -> None:
    net, x = head(5).double(), torch.zeros(1, 5, dtype=torch.float64)
    smx.export.export_onnx(net, tmp_path / "m.onnx", example_input=torch.randn(2, 5, dtype=torch.float64))
    assert smx.verify(net, tmp_path / "m.onnx", example_input=x).passed


def test_a_file_of_another_network_is_refused(tmp_path: Path) -> None:
    conv = nn.Sequential(nn.Conv1d(1, 4, 3), smx.Mixed([0, 1, 0, 1]), nn.AdaptiveAvgPool1d(1), nn.Flatten())
    x = torch.randn(2, 1, 9)
    smx.export.export_onnx(conv, tmp_path / "m.onnx", example_input=x, dynamic={"input": {2: "time"}})
    with pytest.raises(InputError, match="takes other inputs than the network; was it exported from another one"):
        smx.verify(head(4), tmp_path / "m.onnx", example_input=torch.randn(2, 4))
