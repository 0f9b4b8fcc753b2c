"""Files of earlier versions, kept in tests/fixtures, load for ever; files of a later format are refused by its name.

Add files of new versions, and leave those that are there as they are. These were made by `smx train` with the settings
of `SMALL` in tests/smx/runs.py, `hidden = 6` and two epochs a phase, by `smx export` in two layouts and `smx tune`;
`any.pt` is a network of another class, by `smx.save`, with the answers that it gave.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

import smx
from smx import data, torchfile
from smx.errors import InputError
from smx.modelfile import load_model
from smx.runtime.metadata import ModelInfo
from smx.runtime.session import Session
from smx.runtime.tuning import is_tuned, read_tuning
from smx.training.checkpoint import Checkpoint
from tests.edited import loaded

KEPT = Path(__file__).parent / "fixtures"


def test_a_kept_model_has_its_accuracy_and_its_exports_its_answers() -> None:
    saved, digits = load_model(KEPT / "model.pt"), data.load("digits").test
    x = digits.x.reshape(len(digits), -1).astype(np.float32) / 16
    with torch.no_grad():
        expected = smx.load(KEPT / "model.pt")(torch.from_numpy(x)).numpy()
    assert (expected.argmax(1) == digits.y).mean() == pytest.approx(saved.metrics["phase2"]["test_accuracy"], abs=0.01)
    for layout in ("scatter", "sorted"):
        session = Session(KEPT / f"{layout}.onnx")
        assert session.info is not None
        assert session.info.layout == layout
        assert [layer.neurons for layer in session.info.layers] == [6]
        np.testing.assert_allclose(session.run(x), expected, rtol=1e-4, atol=1e-5)


def test_a_kept_network_of_any_class_has_its_answers() -> None:
    kept = np.load(KEPT / "any.npz")
    with torch.no_grad():
        answers = smx.load(KEPT / "any.pt").eval()(torch.from_numpy(kept["x"]))
    np.testing.assert_allclose(answers.numpy(), kept["y"], rtol=0, atol=1e-5)


def test_a_kept_run_goes_on(tmp_path: Path) -> None:
    state = Checkpoint.load(KEPT / "checkpoint.pt")
    assert (state.phase, state.epoch, len(state.rows)) == (2, 1, 3)
    shutil.copy(KEPT / "checkpoint.pt", tmp_path)
    report = smx.train(out=tmp_path, resume=True)
    assert [row.phase for row in report.rows] == [1, 1, 2, 2]


def test_a_kept_tuning_is_read() -> None:
    tuning, note = read_tuning(KEPT / "sorted.onnx", "cpu")
    assert is_tuned(KEPT / "sorted.onnx")
    assert tuning is None or tuning.settings.threads == 1
    assert note is None or "made on another machine" in note


def test_a_later_format_is_refused_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torchfile, "VERSION", 2)
    torchfile.save(tmp_path / "model.pt", "smx-model", {})
    torchfile.save(tmp_path / "checkpoint.pt", "smx-checkpoint", {})
    monkeypatch.undo()
    for read, name in ((load_model, "model.pt"), (Checkpoint.load, "checkpoint.pt")):
        with pytest.raises(
            InputError, match=rf"{name} has format version 2, this smx reads up to 1; upgrade smartmixed"
        ):
            read(tmp_path / name)
    proto = loaded(KEPT / "sorted.onnx")
    for entry in proto.metadata_props:
        if entry.key == "smx.format":
            entry.value = "2"
    onnx.save(proto, tmp_path / "m.onnx")
    with pytest.raises(InputError, match=r"m\.onnx: .* has format version 2, this smx reads 1; upgrade smartmixed"):
        Session(tmp_path / "m.onnx")
    content = json.loads((KEPT / "sorted.onnx.tune.json").read_text())
    (tmp_path / "m.onnx.tune.json").write_text(json.dumps({**content, "version": 2}))
    with pytest.raises(InputError, match=r"it has format version 2, this smx reads 1; upgrade smartmixed"):
        Session(tmp_path / "m.onnx")


def test_files_from_before_versions_are_taken() -> None:
    entries = {entry.key: entry.value for entry in loaded(KEPT / "sorted.onnx").metadata_props}
    assert entries["smx.format"] == "1"
    info = ModelInfo.from_properties(entries)
    del entries["smx.format"]
    assert info is not None
    assert ModelInfo.from_properties(entries) == info
