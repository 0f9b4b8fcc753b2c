"""A run goes on with its data wherever they lie now, and with no others."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import smx
from smx import data
from smx.errors import InputError
from smx.study.cell import CellFolder
from smx.training.config import read_toml
from smx.training.run import train
from tests.smx.runs import SMALL, stop_run


def test_a_run_goes_on_with_the_same_data_elsewhere(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    x, y = random.integers(0, 255, (200, 6), np.uint8), np.arange(200) % 3
    old, new, out = tmp_path / "old.npz", tmp_path / "elsewhere" / "new.npz", tmp_path / "run"
    np.savez(old, x=x, y=y)
    config = replace(SMALL, data=str(old))
    whole = train(config, data.load(str(old)), tmp_path / "whole")
    stop_run(config, data.load(str(old)), out, 2)
    new.parent.mkdir()
    old.rename(new)
    with pytest.raises(
        InputError, match=r"old\.npz, the run's data, does not exist; say where it lies now with --data"
    ):
        smx.train(out=out, resume=True)
    others = tmp_path / "others.npz"
    for unlike, labels in ((x[::-1], y), (x[:, :5], y), (x, y % 2)):
        np.savez(others, x=unlike, y=labels)
        with pytest.raises(InputError, match=r"run was trained on other data than this .*others\.npz; resume with the"):
            smx.train(out=out, resume=True, data=str(others))
    with pytest.raises(InputError, match=r"was trained with lr = 0\.01, not 0\.02"):
        smx.train(out=out, resume=True, data=str(new), lr=0.02)
    report = smx.train(out=out, resume=True, data=str(new))
    assert [row.epoch for row in report.rows] == [row.epoch for row in whole.rows]
    assert whole.model.weights.keys() == report.model.weights.keys()
    assert all(torch.equal(whole.model.weights[name], report.model.weights[name]) for name in whole.model.weights)
    assert report.model.data["name"] == read_toml(out / "config.toml")["data"] == str(new)
    smx.train(out=out, resume=True)  # from its new place
    noted = "# a note of mine\n" + (out / "config.toml").read_text()
    (out / "config.toml").write_text(noted)
    smx.train(out=out, resume=True)
    assert (out / "config.toml").read_text() == noted


def test_what_may_not_be_read_is_not_called_damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The advice would be to begin again, or to remove the file."""
    (tmp_path / "result.json").write_text("{}")
    (tmp_path / "checkpoint.pt").write_bytes(b"PK")
    real = Path.open

    def refused(self: Path, mode: str = "r", *arguments: object, **options: object) -> object:
        if "w" not in mode and self.parent == tmp_path:
            raise PermissionError(13, "Permission denied", str(self))  # the mode of a file does not bind root
        return real(self, mode)

    monkeypatch.setattr(Path, "open", refused)
    with pytest.raises(InputError, match=r"result\.json can't be read \(Permission denied\)$"):
        CellFolder(tmp_path).result()
    (tmp_path / "folder" / "checkpoint.pt").mkdir(parents=True)
    with pytest.raises(InputError, match=r"checkpoint\.pt is a folder") as caught:
        smx.train(out=tmp_path / "folder", resume=True)
    assert "damaged" not in str(caught.value)
