"""Files that smx 0.1.0 wrote load for ever. They are never written again: a new format gets a folder of its own."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import smx
from smx.runtime import Session
from smx.training.checkpoint import Checkpoint
from tests.conftest import smx_many

FORMAT_1 = Path(__file__).parent / "fixtures" / "format-1"
ANSWERS = np.load(FORMAT_1 / "answers.npz")


@pytest.mark.parametrize(("name", "x", "y"), [("model.pt", "x", "y"), ("any.pt", "x_any", "y_any")])
def test_networks(name: str, x: str, y: str) -> None:
    """The digits' network of `smx train`, and one of `smx.save` with its `Selective` layer."""
    with torch.no_grad():
        answer = smx.load(FORMAT_1 / name).eval()(torch.from_numpy(ANSWERS[x]))
    np.testing.assert_allclose(answer.numpy(), ANSWERS[y], rtol=0, atol=1e-5)


@pytest.mark.parametrize("layout", ["scatter", "sorted"])
def test_exported_files(layout: str) -> None:
    session = Session(FORMAT_1 / f"{layout}.onnx")
    np.testing.assert_allclose(session.run(ANSWERS["x"]), ANSWERS["y"], rtol=0, atol=1e-5)
    assert session.info is not None
    assert (session.info.layout, session.info.smx_version) == (layout, "0.1.0")
    assert [layer.neurons for layer in session.info.layers] == [6, 4]


def test_a_run_that_was_killed_after_its_first_epoch(tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(FORMAT_1, run)
    (run / "model.pt").unlink()
    checkpoint = Checkpoint.load(run / "checkpoint.pt")
    assert (checkpoint.phase, checkpoint.epoch) == (1, 1)
    trained, verified = smx_many(
        ("train", "--resume", "--out", run), ("verify", FORMAT_1 / "model.pt", FORMAT_1 / "sorted.onnx")
    )
    assert trained.returncode == 0, trained.stderr
    assert (run / "model.pt").is_file()
    assert len((run / "metrics.csv").read_text().splitlines()) == 1 + 2 + 3
    assert verified.returncode == 0, verified.stderr
