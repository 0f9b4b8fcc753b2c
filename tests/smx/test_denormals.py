"""Training takes denormal numbers as 0, and nothing else does."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from smx import data
from smx.training.denormals import flushed, flushes
from smx.training.metrics import EpochMetrics
from smx.training.run import train
from tests.smx.runs import SMALL

pytestmark = pytest.mark.skipif(not torch.set_flush_denormal(False), reason="this processor can't flush denormals")

SHARES = """
import torch
from smx.training.denormals import flush_other_threads, flushed
torch.set_num_threads(2)
def share():
    smallest = torch.ones(1 << 20, dtype=torch.int32).view(torch.float32)
    return ((smallest * 1).view(torch.int32) == 0).double().mean().item()
if {others}:
    flush_other_threads()
with flushed():
    inside = share()
print(inside, share())
"""


def test_within_a_context_of_this_thread() -> None:
    for outside in (False, True):
        torch.set_flush_denormal(outside)
        with flushed():
            assert flushes()
        assert flushes() == outside
    torch.set_flush_denormal(False)


@pytest.mark.parametrize(("others", "expected"), [(False, "0.5 0.0"), (True, "1.0 0.5")])
def test_other_threads_only_where_the_process_is_ours(others: bool, expected: str) -> None:
    script = SHARES.format(others=others)
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert result.stdout.split() == expected.split()


def test_in_training_alone(tmp_path: Path) -> None:
    seen: list[bool] = []

    def on_epoch(row: EpochMetrics) -> None:
        seen.append(flushes())

    train(SMALL, data.load("digits"), tmp_path / "run", on_epoch=on_epoch)
    assert seen == [True] * 5
    assert not flushes()
