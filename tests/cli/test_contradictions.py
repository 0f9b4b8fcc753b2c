"""Options that contradict each other, or that nothing heeds, are refused instead of ignored."""

from __future__ import annotations

from pathlib import Path

import smx as package
from smx.training.config import SMARTMIXED, TrainConfig
from smx.workflows.train import OF_CHOICES
from tests.conftest import all_refused, done

FIXTURES = Path(__file__).parents[1] / "fixtures"


def test_they_are_refused(tmp_path: Path) -> None:
    grid = ("sweep", "--config", "digits", "--out", tmp_path / "sweep")
    onnx, run = FIXTURES / "sorted.onnx", ("train", "--activation", "relu", "--out", tmp_path / "run")
    all_refused(
        ((*grid, "--status", "--latency"), "--status shows, and does nothing else; leave out --latency"),
        ((*grid, "--status", "--retry"), "leave out --retry, or give it alone"),
        ((*grid, "--dry-run", "--status"), "--dry-run shows, and does nothing else; leave out --status"),
        ((*grid, "--dry-run", "--latency", "--collect", tmp_path / "x.csv"), "leave out --latency and --collect"),
        (("bench", onnx, "--layouts", "sorted"), "layouts are of a MODEL.pt, and none is given; leave them out"),
        (("bench", onnx, "--baselines", "relu"), "baselines are of a MODEL.pt"),
        (("report", tmp_path / "none"), "none does not exist; expected the folder of a run or of a sweep, or a table"),
        (("serve", onnx, "--api-key-file", tmp_path / "none"), "none can't be read (No such file or directory)"),
        ((*run, "--selection", "matched"), "selection is of choices, and with activation = relu none are made; leave"),
        ((*run, "--per", "layer"), "per is of choices"),
        ((*run, "--min-share", "0.1"), "min_share is of choices"),
        ((*run, "--price-weight", "1"), "price_weight is of choices"),
        ((*run, "--temperature", "0.1"), "temperature is of choices"),
    )
    assert not any(tmp_path.iterdir())


def test_a_file_of_settings_may_have_all(tmp_path: Path) -> None:
    """As that of a grid's cell, or of a run, which trains again."""
    assert set(OF_CHOICES) < vars(TrainConfig(activation=SMARTMIXED)).keys()
    few = ("--hidden", "4", "--phase1-epochs", "1", "--phase2-epochs", "1")
    done("train", "--activation", "relu", *few, "--out", tmp_path / "run")
    again = package.train(tmp_path / "run" / "config.toml", out=tmp_path / "again")
    assert again.model.training["activation"] == "relu"
