"""Reading runs, sweeps and tables."""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from smx import data
from smx.errors import InputError
from smx.reporting.nested import CURVES
from smx.reporting.source import read_source
from smx.study import table
from smx.study.cell import CellFolder, train_cell
from smx.study.finished import row_of_run
from smx.study.grid import Cell, read_grid
from smx.study.listing import add_cells
from smx.study.methods import CONTROLS, PAPER_METHODS, method_of, settings_of
from smx.training.config import from_values
from smx.training.metrics import from_csv, to_csv
from tests.reporting.tables import accuracies, frame

BASE = {"phase1_epochs": 1, "phase2_epochs": 1, "device": "cpu"}


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a sweep with two done cells, one that failed and one that is missing."""
    out = tmp_path_factory.mktemp("sweep")
    grid = {"base": BASE, "grid": {"hidden": [(8, 4)], "method": ["smartmixed", "relu", "tanh", "random"]}}
    cells = add_cells(out, read_grid(grid).cells())
    for cell in cells[:2]:
        folder = CellFolder.of(cell, out)
        folder.finish(train_cell(cell, folder.path))
    CellFolder.of(cells[2], out).fail("SmxError: the loss is no longer finite")
    return out


def same(one: object, other: object) -> bool:
    """Compare values of a row: numbers but for the last digits that a table in a file may lose, NaN as None."""
    if isinstance(one, float) and isinstance(other, float):
        return (math.isnan(one) and math.isnan(other)) or math.isclose(one, other, rel_tol=1e-12)
    missing = [value is None or (isinstance(value, float) and math.isnan(value)) for value in (one, other)]
    return all(missing) or one == other


def test_a_sweep_is_read_from_its_folder_and_from_its_tables(sweep: Path, tmp_path: Path) -> None:
    study = read_source(sweep)
    assert study.kind == "sweep"
    assert study.counts == {"done": 2, "failed": 1, "missing": 1}
    assert study.not_done.to_dict("records")[0] == {
        "method": "tanh",
        "architecture": "8-4",
        "seed": 0,
        "status": "failed",
        "error": "SmxError: the loss is no longer finite",
    }
    assert study.not_done["status"].tolist() == ["failed", "missing"]
    for name in ("table.csv", "table.parquet"):
        table.write(table.collect(sweep), tmp_path / name)
        again = read_source(tmp_path / name)
        assert again.kind == "table"
        assert again.counts == study.counts
        for one, other in zip(study.cells.to_dict("records"), again.cells.to_dict("records"), strict=True):
            assert [key for key in one if not same(one[key], other[key])] == []
        assert again.not_done["method"].tolist() == ["tanh", "random"]


def test_a_run_has_the_row_of_a_cell(sweep: Path) -> None:
    for number, method in enumerate(("smartmixed", "relu")):
        cell = read_source(sweep).cells.iloc[number]
        study = read_source(sweep / "cells" / cell["cell"])
        assert study.kind == "run"
        row = study.cells.iloc[0].to_dict()
        assert row["method"] == method
        unknown = {"threads", "machine", "finished", "processor_seconds", "data_fingerprint"}
        assert set(row) == {*cell.index} - unknown
        for name, value in row.items():
            if name in ("seconds", "phase1_seconds", "margin"):
                continue  # metrics.csv has fewer digits
            expected = cell[name]
            if name == "curves":
                assert value.keys() == expected.keys()
                for column in value:
                    assert value[column] == pytest.approx(expected[column], abs=1e-4)
            else:
                assert same(value, expected) or value == pytest.approx(expected, abs=1e-5), name


def test_a_run_without_its_data_has_no_calibration(
    sweep: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = sweep / "cells" / read_source(sweep).cells.iloc[0]["cell"]
    monkeypatch.setattr(data, "is_here", lambda name, data_dir: False)
    row = row_of_run(run)
    assert "calibration_error" not in row
    assert row["neurons"] == 12


def test_data_is_here_or_not(tmp_path: Path) -> None:
    assert data.is_here("digits")
    assert not data.is_here("mnist", tmp_path)
    assert not data.is_here(str(tmp_path / "absent.npz"))
    folder = tmp_path / "MNIST" / "raw"
    folder.mkdir(parents=True)
    for part in ("train", "t10k"):
        assert not data.is_here("mnist", tmp_path)
        for content in ("images-idx3", "labels-idx1"):
            (folder / f"{part}-{content}-ubyte").touch()
    assert data.is_here("mnist", tmp_path)


def test_metrics_are_read_as_they_were_written(sweep: Path) -> None:
    runs = sorted(sweep.glob("cells/*/metrics.csv"))
    assert len(runs) == 2
    for path in runs:
        text = path.read_text()
        assert to_csv(from_csv(text)) == text


@pytest.mark.parametrize("method", [*PAPER_METHODS, *CONTROLS, "gelu"])
def test_a_runs_method_follows_from_its_settings(method: str) -> None:
    assert method_of(from_values(dict(settings_of(method, {})))) == method


def test_what_is_no_source_is_refused(sweep: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.toml").write_text("")
    for path, part in (
        (tmp_path / "empty", "holds neither a run of smx train nor a sweep"),
        (tmp_path / "absent.csv", "does not exist"),
        (tmp_path / "absent", "must end in .csv or .parquet"),
        (run, "has no metrics.csv, so no finished run is in it"),
    ):
        with pytest.raises(InputError, match=part):
            read_source(path)


def test_a_damaged_run_is_refused(sweep: Path, tmp_path: Path) -> None:
    source = sweep / "cells" / read_source(sweep).cells.iloc[0]["cell"]
    for name in ("config.toml", "model.pt", "metrics.csv"):
        (tmp_path / name).write_bytes((source / name).read_bytes())
    lines = (source / "metrics.csv").read_text().splitlines()
    for text in ("", lines[0], "phase,epoch\n1,x\n", "\n".join([lines[0].replace("train_loss", "loss"), lines[1]])):
        (tmp_path / "metrics.csv").write_text(text)
        with pytest.raises(InputError, match=r"metrics\.csv is damaged"):
            read_source(tmp_path)
    for text in (f"{lines[0]}\n{lines[1]},1,2\n", f"{lines[0]}\n{'1' * 200_000},1\n"):
        (tmp_path / "metrics.csv").write_text(text)
        with pytest.raises(InputError, match=r"metrics\.csv is damaged \((a row has more|field larger)"):
            read_source(tmp_path)


def test_files_of_two_runs_are_no_run(sweep: Path, tmp_path: Path) -> None:
    one, other = (sweep / "cells" / cell for cell in read_source(sweep).cells["cell"][:2])
    for name in ("config.toml", "model.pt", "metrics.csv"):
        shutil.copytree(one, tmp_path / name)
        shutil.copy(other / name, tmp_path / name)
        expected = "says activation = .*, and model.pt beside it .*; put the files of one run together"
        if name == "metrics.csv":
            expected = r"metrics\.csv does not have the epochs of model\.pt beside it, each once and in their order"
        with pytest.raises(InputError, match=expected):
            read_source(tmp_path / name)
    lines = (one / "metrics.csv").read_text().splitlines(keepends=True)
    for changed in (lines[:-1], [*lines, lines[-1]], [lines[0], *lines[:0:-1]]):
        (tmp_path / "metrics.csv" / "metrics.csv").write_text("".join(changed))
        with pytest.raises(InputError, match="does not have the epochs"):
            read_source(tmp_path / "metrics.csv")


def result_with(**columns: Any) -> pd.DataFrame:
    def result(cell: Cell) -> dict[str, Any]:
        return {**accuracies(0.5), **columns}

    return frame(result, hidden=[(8,)], method=["smartmixed"])


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("shares", {"layer1": 1}),
        ("shares", {"layer1": {"relu": "all"}}),
        ("shares_by_epoch", {"layer1": {"relu": 0.5}}),
        ("curves", {"phase": [1, 2]}),
        ("curves", {name: [1] for name in ("phase", "train_loss", "validation_loss", "train_accuracy")}),
        ("latency", {"1": {"ratio": "fast"}}),
        ("latency", {"one": {"ratio": 1.0}}),
        ("latency", {"1": 1.0}),
        ("connections", {"sum": [[1.0]]}),
        ("connections", {"sum": [[1.0, 2.0]], "count": [[1, 2]]}),
        ("shares", {"layer1": {"relu": float("inf")}}),
        ("shares", {"layer1": {"relu": -0.5}}),
        ("shares", {"layer1": {"relu": 1e308}}),
        ("shares_by_epoch", {"layer1": {"relu": [0.5, 1.5]}}),
        ("connections", {"sum": [[10**400]], "count": [[1]]}),
        ("curves", {name: [10**400] for name in CURVES}),
        ("latency", {"1": {"ratio": float("nan")}}),
    ],
)
def test_damaged_columns_are_refused(column: str, value: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "table.parquet"
    table.write(result_with(**{column: value}), path)
    with pytest.raises(InputError, match=f"{column} of the cell .* are damaged"):
        read_source(path)


@pytest.mark.parametrize(
    ("column", "value"),
    [("test_accuracy", 1.5), ("validation_accuracy", -0.1), ("seconds", -1.0), ("threads", float("inf"))],
)
def test_numbers_out_of_range_are_refused(column: str, value: float, tmp_path: Path) -> None:
    for name in ("table.csv", "table.parquet"):
        table.write(result_with(**{column: value}), tmp_path / name)
        with pytest.raises(InputError, match=f"has a {column} that is below 0 or too large"):
            read_source(tmp_path / name)


def test_a_word_is_no_number(tmp_path: Path) -> None:
    table.write(result_with(test_accuracy=True), tmp_path / "table.parquet")
    with pytest.raises(InputError, match=r"has a test_accuracy that is no number \(it is true or false\)"):
        read_source(tmp_path / "table.parquet")


def test_a_table_without_results_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    table.write(frame(lambda cell: None, hidden=[(8,)], method=["relu"]), path)
    with pytest.raises(InputError, match="has no cell that is done, among 1"):
        read_source(path)
    path.write_text("cell,status,method\na,done,relu\n")
    with pytest.raises(InputError, match="a done cell without a test_accuracy"):
        read_source(path)
    path.write_text("cell,status,method,test_accuracy,validation_accuracy\na,done,relu,high,0.5\n")
    with pytest.raises(InputError, match="test_accuracy that is no number"):
        read_source(path)


def test_a_cell_counts_once(tmp_path: Path) -> None:
    """A table of two machines has some cells twice; a cell that is done somewhere is done."""
    path = tmp_path / "table.csv"
    rows = ["a,failed,relu,,", "a,done,relu,0.5,0.5", "a,done,relu,0.5,0.5", "b,failed,elu,,", "b,missing,elu,,"]
    path.write_text("\n".join(["cell,status,method,test_accuracy,validation_accuracy", *rows]) + "\n")
    assert read_source(path).counts == {"done": 1, "failed": 1, "missing": 0}


def test_words_that_look_like_numbers_stay_words(tmp_path: Path) -> None:
    path = tmp_path / "table.parquet"
    table.write(result_with(error=None).assign(method=1, data=2.5), path)
    (only,) = read_source(path).sections
    assert only.methods == ["1"]
    assert only.cells["data"].tolist() == ["2.5"]


def test_settings_that_an_old_table_lacks_have_their_defaults(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text("cell,status,method,test_accuracy,validation_accuracy\na,done,relu,0.5,0.5\n")
    study = read_source(path)
    assert study.varying == []
    assert study.sections[0].architectures == ["512-256-128"]
