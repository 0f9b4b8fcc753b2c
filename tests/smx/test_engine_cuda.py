"""The engine on a GPU, where there is one: graphs, mixed precision, examples in main memory."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from smx import data
from smx.training import examples
from smx.training.examples import load_examples
from smx.training.run import TrainResult, train
from tests.smx import runs
from tests.smx.runs import stopped_and_resumed

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")

SMALL, SCHEDULED = (replace(config, device="cuda") for config in (runs.SMALL, runs.SCHEDULED))
DIGITS = data.load("digits")


def require_close(ours: TrainResult, theirs: TrainResult, tolerance: float) -> None:
    for a, b in zip(ours.rows, theirs.rows, strict=True):
        assert a.train_loss == pytest.approx(b.train_loss, rel=tolerance)
        assert a.validation_loss == pytest.approx(b.validation_loss, rel=tolerance)


def test_a_replayed_step_trains_as_the_step_itself(tmp_path: Path) -> None:
    """With the noise, the learning rate and the temperature of every step."""
    graph = train(replace(SCHEDULED, cuda_graphs=True), DIGITS, tmp_path / "graph")
    require_close(graph, train(SCHEDULED, DIGITS, tmp_path / "eager"), 1e-3)
    assert graph.model.metrics["phase2"]["test_accuracy"] > 0.8


def test_a_run_of_graphs_resumes(tmp_path: Path) -> None:
    config = replace(SCHEDULED, cuda_graphs=True)
    whole = train(config, DIGITS, tmp_path / "whole")
    require_close(stopped_and_resumed(config, DIGITS, tmp_path / "parts", 1), whole, 1e-3)


@pytest.mark.parametrize("amp", ["bfloat16", "float16"])
def test_mixed_precision_learns(amp: str, tmp_path: Path) -> None:
    result = train(replace(SMALL, amp=amp), DIGITS, tmp_path)
    assert result.model.metrics["phase2"]["test_accuracy"] > 0.7


def test_examples_in_main_memory_are_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    resident, *_ = load_examples(DIGITS, (64,), "cuda")
    monkeypatch.setattr(examples, "fits", lambda splits, device: False)
    elsewhere, *_ = load_examples(DIGITS, (64,), "cuda")
    indices = torch.randperm(len(resident))[:50]
    assert (resident.x.device.type, elsewhere.x.device.type) == ("cuda", "cpu")
    for ours, theirs in zip(elsewhere.batch(indices), resident.batch(indices.cuda()), strict=True):
        assert ours.device.type == "cuda"
        assert ours.equal(theirs)
    whole = train(SMALL, DIGITS, tmp_path / "elsewhere")
    monkeypatch.undo()
    require_close(train(SMALL, DIGITS, tmp_path / "resident"), whole, 1e-3)
