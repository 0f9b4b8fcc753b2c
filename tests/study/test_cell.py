"""A cell's results against the run's own files, and its measures against NumPy."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from smx import data
from smx.errors import InputError
from smx.modelfile import load_model
from smx.study.cell import CellFolder, train_cell
from smx.study.grid import Cell, read_grid
from smx.study.measures import calibration_error
from smx.study.runner import train_here
from smx.training.config import from_values
from smx.training.run import train
from tests.study.grids import SMALL


@pytest.fixture(scope="module")
def cell() -> Cell:
    return read_grid(SMALL).cells()[4]  # smartmixed, two layers


@pytest.fixture(scope="module")
def folder(cell: Cell, tmp_path_factory: pytest.TempPathFactory) -> CellFolder:
    folder = CellFolder.of(cell, tmp_path_factory.mktemp("study"))
    folder.finish(train_cell(cell, folder.path))
    return folder


def test_a_cell_whose_result_is_gone_is_made_again(cell: Cell, folder: CellFolder, tmp_path: Path) -> None:
    copied = CellFolder.of(cell, tmp_path)
    shutil.copytree(folder.path, copied.path)
    (copied.path / "result.json").unlink()
    again, error = train_here(cell, tmp_path, None)
    assert error is None
    assert again is not None
    before = folder.result()
    assert before is not None
    assert again["curves"] == before["curves"]


def test_a_checkpoint_of_other_settings_is_refused(cell: Cell, tmp_path: Path) -> None:
    other = read_grid(SMALL).cells()[5]
    train(other.config, data.load("digits"), tmp_path)
    with pytest.raises(InputError, match="holds the checkpoint of a run with another seed; remove the folder"):
        train_cell(cell, tmp_path)


def test_a_cell_trains_what_smx_train_trains(cell: Cell, folder: CellFolder, tmp_path: Path) -> None:
    result = folder.result()
    assert result is not None
    alone = train(cell.config, data.load("digits"), tmp_path / "run")
    assert result["test_accuracy"] == alone.model.metrics["phase2"]["test_accuracy"]
    assert result["phase1_test_accuracy"] == alone.model.metrics["phase1"]["test_accuracy"]
    ours = load_model(folder.path / "model.pt").weights
    assert ours
    assert all(torch.equal(ours[name], weight) for name, weight in alone.model.weights.items())
    assert result["curves"]["train_loss"] == [pytest.approx(row.train_loss, abs=1e-5) for row in alone.rows]
    assert result["curves"]["phase"] == [1, 2, 2]
    last = {layer.removesuffix(".activation"): shares for layer, shares in alone.rows[-1].shares.items()}
    assert result["shares"] == {layer: pytest.approx(shares, abs=1e-5) for layer, shares in last.items()}
    assert {len(shares) for layer in result["shares_by_epoch"].values() for shares in layer.values()} == {1}


def test_measures_are_those_of_numpy(folder: CellFolder) -> None:
    result, model = folder.result(), load_model(folder.path / "model.pt")
    assert result is not None
    digits = data.load("digits").test
    x = torch.from_numpy(digits.x.reshape(len(digits), -1) / np.float32(16))
    with torch.no_grad():
        z = model.build()(x).double().numpy()
    p = np.exp(z - z.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    assert result["test_accuracy"] == pytest.approx((p.argmax(1) == digits.y).mean())
    assert result["test_loss"] == pytest.approx(-np.log(p[range(len(p)), digits.y]).mean(), rel=1e-5)
    confidence, right = p.max(1), p.argmax(1) == digits.y
    error = 0.0
    for k in range(15):
        inside = (confidence * 15 // 1).clip(max=14) == k
        if inside.any():
            error += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
    assert result["calibration_error"] == pytest.approx(error, abs=1e-9)
    assert result["parameters"] == 64 * 8 + 8 + 8 * 6 + 6 + 6 * 10 + 10
    assert result["neurons"] == 14


def test_connections_sum_each_weight_once(folder: CellFolder) -> None:
    result, model = folder.result(), load_model(folder.path / "model.pt")
    assert result is not None
    weight = model.weights["layer2.linear.weight"].numpy()
    before, after = model.choices["layer1.activation"].numpy(), model.choices["layer2.activation"].numpy()
    total, count = np.zeros((6, 6)), np.zeros((6, 6))
    for i, receiver in enumerate(after):
        for j, sender in enumerate(before):
            total[sender, receiver] += weight[i, j]
            count[sender, receiver] += 1
    np.testing.assert_allclose(result["connections"]["sum"], total, atol=1e-6)
    np.testing.assert_array_equal(result["connections"]["count"], count)


def test_perfect_confidence_has_no_calibration_error() -> None:
    logits = torch.eye(4) * 1000
    assert calibration_error(logits, torch.arange(4)) == 0.0
    assert calibration_error(logits, torch.tensor([1, 2, 3, 0])) == 1.0


def test_a_cell_continues_from_its_checkpoint(cell: Cell, folder: CellFolder, tmp_path: Path) -> None:
    def stop(*args: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(cell.config, data.load("digits"), tmp_path, on_epoch=stop)
    assert (tmp_path / "checkpoint.pt").exists()
    result, whole = train_cell(cell, tmp_path), folder.result()
    assert whole is not None
    assert {name: result[name] for name in ("test_loss", "shares", "curves")} == {
        name: whole[name] for name in ("test_loss", "shares", "curves")
    }


def test_a_finished_cell_is_not_trained_again(cell: Cell, folder: CellFolder) -> None:
    """Its process may be killed between keeping the result and saying so: what is done then stays so."""
    assert train_here(cell, folder.path.parent.parent, None) == (folder.result(), None)
    assert folder.error() is None


def test_a_finished_cell_keeps_no_checkpoint_and_no_error(folder: CellFolder) -> None:
    folder.fail("once")
    assert folder.error() == "once"
    result = folder.result()
    assert result is not None
    folder.finish(result)
    assert folder.error() is None
    assert {path.name for path in folder.path.iterdir()} == {"config.toml", "metrics.csv", "model.pt", "result.json"}


def test_a_damaged_result_is_named(tmp_path: Path) -> None:
    folder = CellFolder(tmp_path)
    assert folder.result() is None
    (tmp_path / "result.json").write_text("{")
    with pytest.raises(InputError, match=r"result.json is damaged .* remove it"):
        folder.result()


def test_a_baseline_has_no_phase_1(tmp_path: Path) -> None:
    config = from_values({**SMALL["base"], "hidden": [8], "activation": "tanh"})
    result = train_cell(Cell("tanh", config), tmp_path)
    assert result["phase1_test_accuracy"] is None
    assert result["shares_by_epoch"] == {}
    assert result["shares"] == {"layer1": {"tanh": 1.0}}
    assert result["connections"] is None
    assert result["curves"]["phase"] == [2, 2, 2]
