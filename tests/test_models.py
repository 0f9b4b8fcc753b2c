"""Other people's networks: what `benchmarks/models.py` found is without fault, and its judge of axes can find one."""

from __future__ import annotations

import json
import os
import runpy
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import smx
from tests.test_house import ROOT

BENCHMARKS = ROOT / "benchmarks"
verdicts: Any = runpy.run_path(str(BENCHMARKS / "ground_truth.py"))["verdicts"]
LEAST = {"timm": 40, "transformers": 12}


class Blocks(nn.Module):
    """Tokens (B, T, 6): a Linear, and a Linear over the tokens, which mixes them as in MLP-Mixer; T is 5."""

    def __init__(self, dims: tuple[int, int]) -> None:
        super().__init__()
        self.linear, self.tokens, self.head = nn.Linear(6, 8), nn.Linear(5, 5), nn.Linear(8, 2)
        sizes = {-1: 8, 1: 5}, {-1: 5, 1: 8}
        self.act, self.mix = (smx.Selective(size[dim], dim=dim) for size, dim in zip(sizes, dims, strict=True))

    def forward(self, x: Tensor) -> Tensor:
        h = self.mix(self.tokens(self.act(self.linear(x)).transpose(1, 2)))
        return self.head(h.transpose(1, 2))  # type: ignore[no-any-return]


def test_the_judge_of_axes() -> None:
    inputs = [torch.randn(batch, 5, 6) for batch in (2, 3)]
    assert verdicts(Blocks((-1, -1)), inputs) == {"act": "agrees", "mix": "agrees"}
    found = verdicts(Blocks((1, 1)), inputs)
    assert found["act"] == "axis 1 of (2, 5, 8), but the layer before has its neurons on 2"
    assert found["mix"] == "axis 1 of (2, 8, 5), but the layer before has its neurons on 2"


def test_the_judge_sees_axes_that_vary() -> None:
    by_length = nn.Sequential(nn.Linear(6, 8), nn.Flatten(0, 1), smx.Selective(10, dim=0))
    with pytest.raises(ValueError, match="10"):
        verdicts(by_length, [torch.randn(2, 5, 6), torch.randn(3, 5, 6)])


def test_the_results_are_without_fault() -> None:
    models = runpy.run_path(str(BENCHMARKS / "models.py"))
    rows = json.loads((ROOT / "docs" / "results" / "models.json").read_text())["architectures"]
    assert {row["name"]: models["fault"](row) for row in rows if models["fault"](row)} == {}
    done = Counter(row["package"] for row in rows if row["stage"] == "done")
    assert all(done[package] >= least for package, least in LEAST.items()), done


@pytest.mark.models
@pytest.mark.timeout(900)
def test_some_networks_go_all_the_way(tmp_path: Path) -> None:
    command = [sys.executable, str(BENCHMARKS / "models.py"), "--smallest", "--json", "found.json"]
    subprocess.run(command, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=True)
    rows = json.loads((tmp_path / "found.json").read_text())["architectures"]
    assert [row["stage"] for row in rows] == ["done"] * 4
