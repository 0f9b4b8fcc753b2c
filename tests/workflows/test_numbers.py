"""Numbers that nothing can be measured with are refused before anything is done."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import smx
from smx.errors import InputError, SmxError

ONNX, MODEL = (Path(__file__).parents[1] / "fixtures" / name for name in ("sorted.onnx", "model.pt"))


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: smx.bench([ONNX], rounds=0), "rounds must be between 1 and 1000000, got 0"),
        (lambda: smx.bench([ONNX], batch_sizes=[]), r"batch sizes must be whole numbers .* got \[\]"),
        (lambda: smx.bench([ONNX], batch_sizes=[0]), r"batch sizes must be whole numbers .* got \[0\]"),
        (lambda: smx.bench_train((5, 4, 2), rounds=0), "rounds must be between 1 and"),
        (lambda: smx.bench_train((5,)), r"sizes must be inputs, neurons .* got \[5\]"),
        (lambda: smx.bench_train((5, 0, 2)), r"sizes must be inputs, neurons .* got \[5, 0, 2\]"),
        (lambda: smx.bench_train((5, 4, 2), threads=0), "threads must be between 1 and 256, got 0"),
        (lambda: smx.bench_train((5, 4, 2), device="tpu"), "the device must be cpu or cuda, got 'tpu'"),
        (lambda: smx.tune(ONNX, max_threads=0), "threads must be between 1 and 256, got 0"),
        (lambda: smx.tune(ONNX, batch_size=0), r"batch sizes must be whole numbers .* got \[0\]"),
        (lambda: smx.classify(ONNX, []), "no examples are given; give an array, or paths"),
        (lambda: smx.export_model(MODEL, MODEL), r"model\.pt must end in \.onnx"),
    ],
)
def test_bad_numbers(call: Callable[[], object], said: str) -> None:
    before = MODEL.read_bytes()
    with pytest.raises(InputError, match=said):
        call()
    assert MODEL.read_bytes() == before


class Later(nn.Sequential):
    """A network that fails after so many calls."""

    calls = 10**9

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        Later.calls -= 1
        if Later.calls < 0:
            raise KeyError("k")
        y: torch.Tensor = super().forward(x)  # type: ignore[no-untyped-call]
        return y


def test_a_forward_that_fails_late_is_named(tmp_path: Path) -> None:
    net = Later(nn.Linear(4, 3), smx.Mixed([0, 1, 2]), nn.Linear(3, 2)).eval()
    x = np.ones((3, 4), np.float32)
    smx.export.export_onnx(net, tmp_path / "m.onnx", example_input=torch.from_numpy(x))
    given = {"example_input": torch.from_numpy(x), "data": x, "batch_sizes": [1]}
    assert smx.verify(net, tmp_path / "m.onnx", **given).passed  # type: ignore[arg-type]
    Later.calls = 4
    with pytest.raises(SmxError, match=r"m\.onnx is compared with fails in PyTorch \(KeyError: 'k'\)"):
        smx.verify(net, tmp_path / "m.onnx", **given)  # type: ignore[arg-type]
    Later.calls = 10**9
