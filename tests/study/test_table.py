"""The table of a study: written and read back, in both formats."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from smx.errors import InputError
from smx.study import table
from smx.study.cell import CellFolder
from smx.study.grid import read_grid
from smx.study.listing import add_cells, read_cells
from tests.study.grids import SMALL, with_grid

RESULT: dict[str, Any] = {
    "test_accuracy": 0.5,
    "validation_accuracy": 0.5,
    "phase1_test_accuracy": None,
    "epochs": 3,
    "seconds": 1.5,
    "curves": {"train_loss": [1.0, 0.5]},
    "shares": {"layer1": {"relu": 1.0}},
    "connections": None,
    "finished": "2026-11-29T00:00:00+00:00",
}


def made() -> pd.DataFrame:
    grid = with_grid(hidden=[[8], [8, 6]], method=["smartmixed", "relu"], tensorboard=[True, False])
    first, second, *others = read_grid(grid).cells()
    auto = read_grid(with_grid(phase1_epochs=["auto"], method=["smartmixed"])).cells()
    rows = [table.row(cell, {**RESULT, "phase1_test_accuracy": 0.25}) for cell in (*others, *auto)]
    return table.frame([table.row(first, RESULT), table.row(second, error='bad "news",\nof <b>'), *rows])


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_table_comes_back(suffix: str, tmp_path: Path) -> None:
    path, before = tmp_path / f"table{suffix}", made()
    table.write(before, path)
    after = table.read(path)
    assert list(after.columns) == list(before.columns)
    ours, theirs = table.rows(before), table.rows(after)
    assert len(ours) == len(theirs) == 9
    for left, right in zip(ours, theirs, strict=True):
        assert {**left, "phase1_epochs": str(left["phase1_epochs"])} == {
            **right,
            "phase1_epochs": str(right["phase1_epochs"]),
        }
    known = table.known_results(after)
    done = [row for row in ours if row["status"] == "done"]
    assert [*known] == [row["cell"] for row in done]
    assert known[done[0]["cell"]] == {name: value for name, value in RESULT.items() if value is not None}


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_settings_that_an_older_table_lacks_stay_what_they_are(suffix: str, tmp_path: Path) -> None:
    """Rows from before there was a setting, beside rows that have it: true and false are no words."""
    both = pd.concat([made().drop(columns=["tensorboard"]), made()], ignore_index=True)
    table.write(both, tmp_path / f"t{suffix}")
    after = table.read(tmp_path / f"t{suffix}")["tensorboard"]
    assert after[:9].isna().all()
    assert after[9:].tolist() == both["tensorboard"][9:].tolist()
    assert {True, False} == set(after[9:])


def test_a_single_hidden_layer_is_no_number(tmp_path: Path) -> None:
    cells = read_grid(with_grid(hidden=[[8]], seed=[0])).cells()
    table.write(table.frame([table.row(cells[0], RESULT)]), tmp_path / "t.csv")
    assert [*table.known_results(table.read(tmp_path / "t.csv"))] == [cells[0].id]


def test_what_a_spreadsheet_makes_of_a_table(tmp_path: Path) -> None:
    """TRUE for True, and a column of floats where a whole number is missing."""
    cells = read_grid({"base": SMALL["base"], "grid": {"hold": [True], "start": ["relu"], "seed": [0, 1]}}).cells()
    path = tmp_path / "t.csv"
    table.write(table.frame([table.row(cell, RESULT) for cell in cells]), path)
    path.write_text(path.read_text().replace("True", "TRUE").replace("False", "FALSE"))
    assert [*table.known_results(table.read(path))] == [cell.id for cell in cells]
    frame = table.read(path)
    frame["max_groups"] = [0, None]
    frame["seed"] = frame["seed"].astype(float)
    frame["cell"] = None
    assert [*table.known_results(frame)] == [cell.id for cell in cells]
    path.write_text(path.read_text().replace("TRUE", "yes"))
    with pytest.raises(InputError, match="hold is 'yes', expected true or false"):
        table.read(path)


@pytest.mark.parametrize(
    ("name", "value"), [("validation_accuracy", None), ("validation_accuracy", 2.0), ("epochs", -1)]
)
def test_a_table_whose_report_would_fail_is_refused(name: str, value: Any) -> None:
    cell = read_grid(SMALL).cells()[0]
    with pytest.raises(InputError, match=f"finished cell {cell.id} has .*{name}"):
        table.known_results(table.frame([table.row(cell, {**RESULT, name: value})]))


def test_a_renamed_method_has_its_new_name(tmp_path: Path) -> None:
    named = [{"grid": {"method": [name]}, "methods": {name: {"pool": ["relu", "elu"]}}} for name in ("old", "new")]
    for grid in named:
        cells = add_cells(tmp_path, read_grid(grid).cells())
    assert [cell.method for cell in cells] == [cell.method for cell in read_cells(tmp_path)] == ["new"]


def test_what_is_no_table_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="must end in"):
        table.write(made(), tmp_path / "table.xlsx")
    for suffix in (".csv", ".parquet"):
        path = tmp_path / f"absent{suffix}"
        with pytest.raises(InputError, match="does not exist"):
            table.read(path)
        path.write_bytes(b"\xff\x00\x01" * 10)
        with pytest.raises(InputError, match="is no table of a sweep"):
            table.read(path)
    path = tmp_path / "other.csv"
    path.write_text("a,b\n1,2\n")
    with pytest.raises(InputError, match="has no column 'cell'"):
        table.read(path)
    path.write_text('cell,status,method,shares\na,done,relu,"[1]"\n')
    with pytest.raises(InputError, match=r"is no table of a sweep \(expected an object"):
        table.read(path)
    path.write_text("cell,status,method,lr\na,done,relu,fast\n")
    with pytest.raises(InputError, match="lr must be a number, got 'fast'"):
        table.known_results(table.read(path))


@pytest.mark.parametrize("value", [pd.Timestamp("2026-11-29"), pd.Timedelta("1s"), b"\xff", [1, 2]])
def test_values_that_no_table_has_are_refused(value: object, tmp_path: Path) -> None:
    """Parquet has types that JSON has not, in which the results of a known table are kept."""
    found = {"cell": ["a"], "status": ["done"], "method": ["relu"], "finished": [value]}
    pd.DataFrame(found).to_parquet(tmp_path / "table.parquet")
    with pytest.raises(InputError, match="the column 'finished' holds values of the type"):
        table.read(tmp_path / "table.parquet")


def test_a_table_of_another_version_stands_for_no_other_cells() -> None:
    """A setting that this version does not know made it another cell; as long as it had its default, it did not."""
    cell = read_grid(SMALL).cells()[0]
    row = table.row(cell, RESULT) | {"width": 3}
    assert [*table.known_results(table.frame([row]))] == [cell.id]
    with pytest.raises(InputError, match="the table has settings that this smx does not know: width"):
        table.known_results(table.frame([row | {"cell": "0123456789ab"}]))


@pytest.mark.parametrize("accuracy", [None, "high", True, -0.1, 1.1, float("nan"), 10**400, [1]])
def test_a_finished_cell_has_an_accuracy(accuracy: Any, tmp_path: Path) -> None:
    cell = read_grid(SMALL).cells()[0]
    folder, result = CellFolder.of(cell, tmp_path), {**RESULT, "test_accuracy": accuracy}
    folder.finish(result)
    with pytest.raises(InputError, match=r"is damaged \(it has no test_accuracy between 0 and 1"):
        folder.result()
    with pytest.raises(InputError, match=f"finished cell {cell.id} has no test_accuracy between 0 and 1"):
        table.known_results(table.frame([table.row(cell, result)]))


def test_a_result_says_nothing_of_the_cell_itself() -> None:
    cell = read_grid(SMALL).cells()[0]
    row = table.row(cell, {**RESULT, "status": "failed", "method": "x", "seed": 9, "cell": ""})
    assert row == table.row(cell, RESULT)


def test_damaged_files_of_a_cell_are_named(tmp_path: Path) -> None:
    (cell,) = read_grid(with_grid(seed=[0])).cells()
    folder = CellFolder.of(cell, tmp_path)
    for content in ("", "[]", "null", "3", "{", "[" * 100_000):
        for name, read in (("result.json", folder.result), ("error.json", folder.error)):
            folder.path.mkdir(parents=True, exist_ok=True)
            (folder.path / name).write_text(content)
            with pytest.raises(InputError, match=rf"{name} is damaged \(.*\); remove it"):
                read()


def test_grids_add_up_in_a_folder(tmp_path: Path) -> None:
    first, second = read_grid(SMALL).cells(), read_grid(with_grid(seed=[5])).cells()
    assert add_cells(tmp_path, first) == first
    assert add_cells(tmp_path, [*second, *first]) == [*first, *second] == read_cells(tmp_path)
    frame = table.collect(tmp_path)
    assert list(frame["status"]) == ["missing"] * 9
    CellFolder.of(first[1], tmp_path).finish(RESULT)
    CellFolder.of(first[2], tmp_path).fail("no")
    assert list(table.collect(tmp_path)["status"]) == ["missing", "done", "failed"] + ["missing"] * 6
    (tmp_path / "cells.json").write_text('{"cells": [{"seed": "x"}]}')
    with pytest.raises(InputError, match="seed must be a whole number"):
        read_cells(tmp_path)
    for content in ("[]", '{"cells": []}', '{"cells": [[1]]}', '{"cells": ["a"]}', '{"cells": {"a": 1}}'):
        (tmp_path / "cells.json").write_text(content)
        with pytest.raises(InputError, match="is damaged"):
            read_cells(tmp_path)
