"""`--selection matched` by the commands, for a network whose scale and shift can't all move into weights."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx.reference import ReferenceEvaluator

import smx as library
from tests.conftest import smx_many

LAYOUTS = ("scatter", "sorted")


def test_the_recommended_rule_is_one_word(tmp_path: Path) -> None:
    """It is spelled out in the run's settings, and a run goes on by the same word."""
    short = ("--hidden", "8", "--phase1-epochs", "1", "--phase2-epochs", "1", "--device", "cpu")
    spelled = ("--selection", "matched", "--start", "relu", "--hold", "--per", "layer", "--price-weight", "0.1")
    runs = smx_many(
        ("train", *short, "--selection", "recommended", "--out", "word"),
        ("train", *short, *spelled, "--out", "spelled"),
        ("train", *short, "--selection", "recommended", "--out", "word", "--resume"),
        ("train", *short, "--selection", "recommended", "--start", "tanh", "--out", "word", "--resume"),
        cwd=tmp_path,
    )
    *good, refused = runs
    assert [run.returncode for run in good] == [0] * 3, [run.stderr for run in good]
    word, spelled_out = (tomllib.loads((tmp_path / run / "config.toml").read_text()) for run in ("word", "spelled"))
    assert word == spelled_out
    assert refused.returncode == 2
    assert "word was trained with start = 'relu', not 'tanh'" in refused.stderr


def test_a_matched_cnn_goes_the_whole_way(tmp_path: Path) -> None:
    short = ("--phase1-epochs", "2", "--phase2-epochs", "1", "--lr", "0.01", "--device", "cpu")
    results = smx_many(
        ("train", "--model", "cnn", "--selection", "matched", *short, "--out", "run"),
        *(("export", "run/model.pt", f"{layout}.onnx", "--layout", layout) for layout in LAYOUTS),
        *(
            (
                "verify",
                "run/model.pt",
                f"{layout}.onnx",
                "--locate",
                "--json",
                f"{layout}.json",
                "--batch-sizes",
                "1,16",
            )
            for layout in LAYOUTS
        ),
        cwd=tmp_path,
    )
    for result in results:
        assert result.returncode == 0, result.stderr
    net = library.load(tmp_path / "run/model.pt")
    assert all(layer.affine is not None for layer in net.modules() if isinstance(layer, library.Mixed))
    x = np.random.default_rng(0).random((5, 1, 8, 8), np.float32)
    expected = net(torch.from_numpy(x)).detach().numpy()
    for layout in LAYOUTS:
        (h,) = ReferenceEvaluator(onnx.load(tmp_path / f"{layout}.onnx")).run(None, {"input": x})
        np.testing.assert_allclose(np.asarray(h), expected, rtol=1e-4, atol=1e-4)
        report = json.loads((tmp_path / f"{layout}.json").read_text())
        assert report["passed"]
