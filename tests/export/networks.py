"""A network, and what holds an exported file against it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import torch
from torch import Tensor, nn

import smx
from smx.runtime import Session
from tests import reference


def mixed_net(pool: tuple[str, ...] = smx.PAPER_POOL, neurons: int = 12) -> nn.Sequential:
    torch.manual_seed(0)
    choice = torch.arange(neurons) % len(pool)
    return nn.Sequential(nn.Linear(5, neurons), smx.Mixed(choice, pool), nn.Linear(neurons, 3))


def operators(path: Path) -> list[str]:
    return [node.op_type for node in onnx.load(path).graph.node]


def agree(path: Path, module: nn.Module, *inputs: Tensor, atol: float = 1e-6) -> None:
    """Hold onnxruntime and the ONNX reference evaluator against PyTorch."""
    with torch.no_grad():
        expected = module.eval()(*inputs).numpy()
    arrays = [x.numpy() for x in inputs]
    np.testing.assert_allclose(Session(path).run(*arrays), expected, atol=atol, rtol=1e-5)
    names = [value.name for value in Session(path).inputs]
    got = reference.evaluate_onnx(str(path), **dict(zip(names, arrays, strict=True)))
    np.testing.assert_allclose(got, expected, atol=atol, rtol=1e-5)
