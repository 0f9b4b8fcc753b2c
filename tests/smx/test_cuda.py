"""The layers on a GPU, where there is one: the same answers and gradients as on the CPU."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import smx
from smx import data, functional
from smx.training.config import TrainConfig
from smx.training.run import load_checkpoint, train

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def test_selective_and_mixed_as_on_the_cpu() -> None:
    torch.manual_seed(0)
    layer = smx.Selective(16, dtype=torch.float64)
    z, noise = torch.randn(8, 16, 3, dtype=torch.float64), functional.gumbel_noise((16, 6), dtype=torch.float64)
    results = []
    for device in ("cpu", "cuda"):
        inputs = [tensor.detach().to(device).requires_grad_() for tensor in (z, layer.logits)]
        h = functional.selective(inputs[0], inputs[1], noise.to(device), 0.3, layer.pool)
        gradients = torch.autograd.grad(h.square().sum(), inputs)
        mixed = smx.Mixed(layer.choice, layer.pool).to(device)(inputs[0])
        results.append([tensor.detach().cpu() for tensor in (h, *gradients, mixed)])
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_a_run_and_its_resumption(tmp_path: Path) -> None:
    config = TrainConfig(hidden=(16,), phase1_epochs=2, phase2_epochs=2, lr=0.01, device="cuda")
    digits = data.load("digits")
    train(config, digits, tmp_path)
    result = train(config, digits, tmp_path, checkpoint=load_checkpoint(tmp_path))
    assert len(result.rows) == 4
    assert result.model.metrics["phase2"]["test_accuracy"] > 0.3
