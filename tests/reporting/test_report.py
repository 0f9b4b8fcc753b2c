"""`smx report` and `smx.report`: from what they read, where they write, what they refuse."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from xml.etree import ElementTree

import pandas as pd
import pytest

import smx
from smx.errors import InputError
from tests.conftest import all_refused, refused, smx_many
from tests.conftest import smx as command
from tests.reporting.made import rows, undone, written
from tests.reporting.parsed import Parsed

ONE = {"hidden": [[8]], "method": ["smartmixed", "relu"], "seed": [0]}


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(rows(ONE), tmp_path_factory.mktemp("table") / "small.csv")


def test_a_run_has_its_page_in_its_folder(run: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(run, tmp_path / "run", ignore=shutil.ignore_patterns("report.html"))
    before = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    first, second = smx_many(("report", folder), ("report", folder, "--json", "-"))
    assert first.returncode == 0, first.stderr
    assert "1 done" in first.stdout
    report = json.loads(second.stdout)
    assert report["out"] == str(folder / "report.html")
    assert report["done"] == 1
    shown = Parsed((folder / "report.html").read_text())
    assert {"losses", "accuracies", "shares", "epochs", "weights"} <= shown.figures
    left = {path.name for path in folder.iterdir()} - {"report.html", "figures"}
    assert left == set(before)
    assert all((folder / name).read_bytes() == content for name, content in before.items())


def test_a_table_has_its_page_beside_it(table: Path, tmp_path: Path) -> None:
    page, data = tmp_path / "page.html", tmp_path / "report.json"
    result = command("report", table, "-o", page, "--json", data, "--figures", tmp_path / "figures")
    assert result.returncode == 0, result.stderr
    report = json.loads(data.read_text())
    assert {"question", "verdict", "text", "p_corrected"} <= set(report["findings"][0])
    assert list(report["frames"]) == list(dict.fromkeys(report["frames"]))
    assert Parsed(page.read_text()).figures >= {"losses", "shares"}
    files = {path.stem: ElementTree.parse(path).getroot() for path in (tmp_path / "figures").iterdir()}
    assert {*files} == Parsed(page.read_text()).figures
    assert {root.tag for root in files.values()} == {"{http://www.w3.org/2000/svg}svg"}
    assert command("report", table).returncode == 0
    assert table.with_suffix(".html").read_text() == page.read_text()


def test_python_has_data_frames(table: Path, tmp_path: Path) -> None:
    made = smx.report(table, tmp_path / "page.html")
    assert made.out == tmp_path / "page.html"
    assert made.html == made.out.read_text()
    assert made.counts == {"done": 2, "failed": 0, "missing": 0}
    assert all(isinstance(frame, pd.DataFrame) for frame in made.frames.values())
    assert set(made.frames) == set(Parsed(made.html).data)
    assert "<iframe" in made._repr_html_()
    alone = smx.report(table, write=False)
    assert alone.out is None
    assert alone.html == made.html
    assert list(tmp_path.iterdir()) == [made.out]


def test_what_can_not_be_reported_is_refused(table: Path, tmp_path: Path) -> None:
    empty = written([undone(row) for row in rows(ONE)], tmp_path / "empty.csv")
    (tmp_path / "folder").mkdir()
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    all_refused(
        (("report", tmp_path / "absent.csv"), "does not exist"),
        (("report", tmp_path / "folder"), "neither a run of smx train nor a sweep"),
        (("report", tmp_path / "other.csv"), "has no column"),
        (("report", empty), "has no cell that is done"),
        (("report", table, "-o", tmp_path / "page.txt"), "must end in .html"),
        (("report", table, "-o", tmp_path / "no" / "page.html"), "does not exist"),
        (("report", table, "--json", table), "has the ending of another kind of file"),
        (("report", table, "--json", table.with_suffix(".html")), "is the page itself"),
    )
    assert not table.with_suffix(".html").exists() or "smx report" in table.with_suffix(".html").read_text()


def test_a_failed_report_leaves_the_old_page(tmp_path: Path) -> None:
    table, page = tmp_path / "table.csv", tmp_path / "table.html"
    table.write_text("cell,status,method\n1,missing,relu\n")
    page.write_text("old")
    with pytest.raises(InputError, match="no cell that is done"):
        smx.report(table)
    assert page.read_text() == "old"


def test_the_packages_of_the_extra_are_named(table: Path) -> None:
    from tests.test_house import base_install

    result = base_install("report", table, missing=("jinja2",))
    refused(result, 1, "smx report needs jinja2", "pip install 'smartmixed[study]'")
