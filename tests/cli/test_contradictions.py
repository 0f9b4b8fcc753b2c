"""Options that contradict each other, or that nothing heeds, are refused instead of ignored."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

import smx as package
from smx.errors import InputError
from smx.paper import RECOMMENDED_SETTINGS
from smx.training.config import SMARTMIXED, TrainConfig
from smx.workflows.train import OF_CHOICES
from tests.conftest import all_refused, done

FIXTURES = Path(__file__).parents[1] / "fixtures"


def test_they_are_refused(tmp_path: Path) -> None:
    grid = ("sweep", "--config", "digits", "--out", tmp_path / "sweep")
    mixed = ("train", "--out", tmp_path / "run")
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
        ((*grid, "--status", "--known", tmp_path / "t.csv"), "leave out --known"),
        ((*grid, "--ray", "10.0.0.1:6379", "--jobs", "2"), "--jobs is of this machine or of --ray local"),
        ((*mixed, "--keep", "0.5"), "keep is not heeded with start = random; leave it out"),
        ((*mixed, "--price", tmp_path / "none.json"), "price is not heeded with price_weight = 0"),
        ((*mixed, "--temperature-end", "0.5"), "temperature_end is not heeded with a constant temperature_schedule"),
        ((*mixed, "--settle-window", "3"), "settle_window is not heeded with a number of phase1_epochs"),
        ((*mixed, "--lr-span", "run"), "lr_span is not heeded with a constant lr_schedule"),
        (
            (*mixed, "--selection", "matched", "--batch-size", "1"),
            "batch_size must be 2 or more with matched candidates",
        ),
        ((*run, "--selection", "recommended"), "selection is of choices"),
        ((*run, "--selection", "matched"), "selection is of choices, and with activation = relu none are made; leave"),
        ((*run, "--per", "layer"), "per is of choices"),
        ((*run, "--min-share", "0.1"), "min_share is of choices"),
        ((*run, "--price-weight", "1"), "price_weight is of choices"),
        ((*run, "--temperature", "0.1"), "temperature is of choices"),
    )
    assert not any(tmp_path.iterdir())


def test_results_go_over_nothing_that_they_are_made_of(tmp_path: Path) -> None:
    cells = tmp_path / "cells"
    cells.mkdir()
    (tmp_path / "cells.json").write_text("{}")
    grid = ("sweep", "--config", "digits", "--out", tmp_path)
    all_refused(
        ((*grid, "--json", tmp_path / "cells.json"), "cells.json is a file of the sweep itself"),
        ((*grid, "--collect", cells / "a.csv"), "a.csv is a file of the sweep itself"),
        (("report", tmp_path, "--json", tmp_path / "cells.json"), "cells.json is what the page is made from"),
    )


def test_the_recommended_rule_wins_over_a_file(tmp_path: Path) -> None:
    """Which names all that the word stands for, with other values."""
    settings = tmp_path / "config.toml"
    settings.write_text(TrainConfig(hidden=(4,), phase1_epochs=1, phase2_epochs=1).to_toml())
    found = package.train(settings, selection="recommended", keep=0.8, out=tmp_path / "run").model.training
    expected = {**RECOMMENDED_SETTINGS, "keep": 0.8, "hidden": [4]}
    assert {name: found[name] for name in expected} == expected
    settings.write_text((tmp_path / "run" / "config.toml").read_text())
    baseline = package.train(settings, activation="relu", out=tmp_path / "baseline")  # which heeds none of it
    assert baseline.model.training["activation"] == "relu"


def test_a_run_is_resumed_in_any_spelling_and_with_the_same_prices(tmp_path: Path) -> None:
    prices = tmp_path / "prices.json"
    prices.write_text(package.load_prices().to_json())
    given = {"hidden": [4], "phase1_epochs": 2, "phase2_epochs": 1, "pool": "relu,swish", "price_weight": 0.5}
    run = tmp_path / "run"

    def stop(row: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        package.train(given, price=prices, out=run, on_epoch=stop)
    others = replace(package.load_prices(), split=2 * package.load_prices().split)
    prices.write_text(others.to_json())
    with pytest.raises(InputError, match="was trained with other prices than those of"):
        package.train(given, price=prices, out=run, resume=True)
    moved = tmp_path / "moved.json"
    moved.write_text(package.load_prices().to_json())
    prices.unlink()
    done = package.train(given, price=moved, out=run, resume=True)
    assert [row.phase for row in done.rows] == [1, 1, 2]


def test_a_file_of_settings_may_have_all(tmp_path: Path) -> None:
    """As that of a grid's cell, or of a run, which trains again."""
    assert set(OF_CHOICES) < vars(TrainConfig(activation=SMARTMIXED)).keys()
    few = ("--hidden", "4", "--phase1-epochs", "1", "--phase2-epochs", "1")
    done("train", "--activation", "relu", *few, "--out", tmp_path / "run")
    again = package.train(tmp_path / "run" / "config.toml", out=tmp_path / "again")
    assert again.model.training["activation"] == "relu"
