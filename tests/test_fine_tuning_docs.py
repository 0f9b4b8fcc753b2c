"""docs/fine-tuning.md is true: its code runs as written, its commands exist, and it says what was measured."""

from __future__ import annotations

import math
import re
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import smx
from smx.architecture import architecture_for
from smx.cli import main
from smx.data.torchvision_sets import import_datasets
from smx.layers import LEAD, selectives
from smx.paper import CURRENT, KEEP, default_selection
from tests.test_house import ROOT

TEXT = (ROOT / "docs" / "fine-tuning.md").read_text()
LIBRARY, NETWORK = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)


def test_the_code_runs_as_written(capsys: pytest.CaptureFixture[str]) -> None:
    import_datasets()  # lets torchvision be imported beside any torch
    torch.manual_seed(0)
    names: dict[str, object] = {}
    exec(LIBRARY, names)
    assert capsys.readouterr().out == "same: True\n"
    net = names["net"]
    assert isinstance(net, nn.Module)
    assert sum(isinstance(part, smx.Mixed) for part in net.modules()) == 17


def test_the_network_of_a_module_begins_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import_datasets()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "modules", sys.modules.copy())
    (tmp_path / "my_network.py").write_text(NETWORK)
    architecture = architecture_for("my_network:net", (3, 16, 16), 10, hidden=())
    net = architecture.selective(smx.PAPER_POOL, start="current").eval()
    assert all(layer.present is not None and bool((layer.choice == 0).all()) for layer in selectives(net))
    assert len(selectives(net)) == 17


def test_the_commands_have_these_options() -> None:
    lines = re.findall(r"^smx (train .*)$", TEXT, re.MULTILINE)
    assert len(lines) == 3
    for line in lines:
        known = {option for parameter in main.commands["train"].params for option in parameter.opts}
        assert set(re.findall(r"--[\w-]+", line)) <= known


def test_the_text_says_what_the_code_has() -> None:
    words = " ".join(TEXT.split())
    assert f"with the probability `keep`, {KEEP}." in words
    assert f"begins {LEAD} above the others" in words
    assert default_selection(CURRENT) == "matched"
    assert math.exp(2) / (math.exp(2) + 5) == pytest.approx(0.6, abs=0.005)
