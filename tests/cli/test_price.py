"""`smx price` as a user runs it, in its smallest form. What it finds is this machine's business."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import smx
from smx.errors import InputError
from smx.paper import PAPER_POOL
from smx.prices import FORMS, load_prices
from tests.conftest import refused, smx_many
from tests.test_house import HEAVY, loaded_after

SMALLEST = ("--batch-sizes", "1,2", "--widths", "4,8", "--rounds", "1")


def test_it_writes_a_file_that_predicts(tmp_path: Path) -> None:
    out = tmp_path / "prices.json"
    arguments = ["price", *SMALLEST, "--out", str(out), "--json", str(tmp_path / "same.json")]
    loaded = loaded_after(f"from smx.cli import main; main({arguments!r}, standalone_mode=False)")
    assert not loaded & (HEAVY - {"scipy"}), "torch would disturb what is measured"
    assert json.loads(out.read_text()) == json.loads((tmp_path / "same.json").read_text())
    prices = load_prices(out)
    assert (prices.batch_sizes, prices.widths, prices.threads, prices.provider) == ((1, 2), (4, 8), 1, "cpu")
    assert set(prices.fused) == set(prices.own) == set(PAPER_POOL)
    assert prices.machine["onnxruntime"]
    assert prices.weights[0] == 0
    assert (prices.network > 0).all()
    for form in FORMS:
        assert prices.predict([{"relu": 4, "elu": 4}], inputs=8, outputs=2, batch_size=2, form=form) > 0


def test_other_activations_are_measured(tmp_path: Path) -> None:
    smx.register(smx.Activation("size", torch.abs, smx.op("Abs")), replace=True)
    prices = smx.price(
        names=("LeakyReLU", "size"), batch_sizes=(1, 2), widths=(4, 8), stacks=(1, 2), blocks=1, rounds=1
    )
    assert set(prices.fused) == {"leaky_relu", "size", "relu", "tanh"}
    refused(smx_many(("price", *SMALLEST, "--pool", "cubic"))[0], 2, "unknown activation 'cubic'")


def test_bad_input(tmp_path: Path) -> None:
    one, descending, nowhere = smx_many(
        ("price", "--batch-sizes", "1"),
        ("price", "--widths", "8,4"),
        ("price", "--out", tmp_path / "none" / "prices.json"),
    )
    refused(one, 2, "batch sizes must be at least two numbers in ascending order, got [1]")
    refused(descending, 2, "widths must be at least two numbers in ascending order, got [8, 4]")
    refused(nowhere, 2, "none")
    with pytest.raises(InputError, match="unknown activation 'nothing'"):
        smx.price(names=("nothing",))
