"""`smx sweep`: grids through the real command."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from smx.cli import main
from smx.study import table
from smx.study.grid import read_grid
from smx.study.listing import add_cells
from smx.workflows.sweep import status
from tests.conftest import all_refused, refused, smx, smx_many
from tests.study.grids import SMALL, comparable, with_grid, written


def rows_of(out: Path) -> list[dict[str, Any]]:
    return comparable(table.rows(table.collect(out)))


@pytest.fixture(scope="module")
def grid(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(tmp_path_factory.mktemp("grid") / "grid.toml", SMALL)


@pytest.fixture(scope="module")
def swept(grid: Path) -> Path:
    out = grid.parent / "swept"
    result = smx("sweep", "--config", grid, "--out", out, "--jobs", "2", "--collect", out.parent / "all.parquet")
    assert result.returncode == 0, result.stderr
    assert str(out / "report.html") in result.stdout
    assert "8 training runs on digits" in (out / "report.html").read_text()
    assert "8 cells, 0 done or failed before" in result.stderr
    assert "8/8" in result.stderr
    assert "8 done, 0 failed, 0 missing" in result.stdout
    return out


def test_a_finished_sweep_trains_nothing_again(grid: Path, swept: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in swept.glob("cells/*/result.json")}
    assert len(before) == 8
    again, status, of_grid = smx_many(
        ("sweep", "--config", grid, "--out", swept, "--json", "-", "--no-report"),
        ("sweep", "--out", swept, "--status", "--json", "-", "--only", "seed=0"),
        ("sweep", "--out", swept, "--status", "--json", "-", "--config", grid, "--seeds", "1-2"),
    )
    assert again.returncode == status.returncode == of_grid.returncode == 0
    assert [json.loads(of_grid.stdout)[state] for state in ("done", "failed", "missing")] == [4, 0, 4]
    report = json.loads(again.stdout)
    assert (report["done"], report["failed"], report["missing"]) == (8, 0, 0)
    assert comparable(report["cells"]) == rows_of(swept)
    assert {path: path.stat().st_mtime_ns for path in swept.glob("cells/*/result.json")} == before
    assert json.loads(status.stdout)["done"] == 4


def test_a_table_stands_for_its_cells(grid: Path, swept: Path, tmp_path: Path) -> None:
    """What is committed goes on elsewhere: only the cells that the table does not have are trained."""
    known, csv = swept.parent / "all.parquet", tmp_path / "all.csv"
    options = ("--known", known, "--seeds", "0-1", "--set", "lr=0.001", "--collect", csv, "--no-report")
    first, second = smx_many(
        ("sweep", "--config", grid, "--out", tmp_path / "a", *options),
        (
            "sweep",
            "--config",
            grid,
            "--out",
            tmp_path / "b",
            "--known",
            csv,
            "--seeds",
            "1-2",
            "--only",
            "method=relu",
            "--no-report",
        ),
    )
    assert "8 cells, 8 done or failed before" in first.stderr
    assert rows_of(tmp_path / "a") == rows_of(swept)
    assert "4 cells, 2 done or failed before" in second.stderr
    assert second.returncode == 0, second.stderr
    assert "4 done, 0 failed, 0 missing" in second.stdout
    assert [row["status"] for row in rows_of(tmp_path / "b")].count("missing") == 4  # smartmixed, of the whole grid


def test_a_cell_that_fails_is_listed_and_retried_on_request(tmp_path: Path) -> None:
    grid = written(tmp_path / "grid.toml", with_grid(hidden=[[8]], lr=[1e30, 1e-3]))
    sweep = ("sweep", "--config", grid, "--out", tmp_path / "out", "--no-report")
    first, second, third, status = smx_many(
        sweep, sweep, (*sweep, "--retry"), ("sweep", "--out", tmp_path / "out", "--status")
    )
    assert first.returncode == second.returncode == third.returncode == 1
    for result in (first, second, third):
        assert "1 done, 1 failed, 0 missing" in result.stdout
        assert "try a lower --lr" in result.stdout
        refused(result, 1, "1 of 2 cells have no result")
    assert "2 cells, 2 done or failed before" in second.stderr
    assert "2 cells, 1 done or failed before" in third.stderr
    assert status.returncode == 0


def test_a_plan_trains_nothing(grid: Path, tmp_path: Path) -> None:
    result = smx("sweep", "--config", grid, "--out", tmp_path / "out", "--dry-run", "--seeds", "3,5-6", "--json", "-")
    assert result.returncode == 0
    assert [cell["seed"] for cell in json.loads(result.stdout)["cells"]] == [0 + seed for seed in (3, 5, 6)] * 4
    assert not (tmp_path / "out").exists()


@pytest.mark.long
def test_latency_is_that_of_the_exported_network(swept: Path) -> None:
    """Once for each network, ReLU's is 1; the second time there is nothing to measure."""
    first, second = smx_many(*2 * [("sweep", "--out", swept, "--latency", "--only", "seed=0", "--only", "hidden=8,6")])
    assert first.returncode == second.returncode == 0, first.stderr
    frame = table.collect(swept)
    measured = frame[frame["latency"].notna()]
    assert set(zip(measured["method"], measured["hidden"], measured["seed"], strict=True)) == {
        ("smartmixed", "8,6", 0),
        ("relu", "8,6", 0),
    }
    for method, latency in zip(measured["method"], measured["latency"], strict=True):
        assert [*latency] == ["1", "128"]
        for found in latency.values():
            assert 0 < found["low"] <= found["ratio"] <= found["high"]
            assert (found["low"] == found["high"] == 1) == (method == "relu")
    assert second.stderr == ""


def test_bad_input_is_refused(grid: Path, swept: Path, tmp_path: Path) -> None:
    known = tmp_path / "table.csv"
    known.write_text("a,b\n")
    future = tmp_path / "future.csv"
    future.write_text("cell,status,method,width,test_accuracy\nabc,done,relu,3,0.5\n")
    own = written(tmp_path / "own.toml", with_grid(model=["my_network:Net"]))
    out = ("--out", tmp_path / "out")
    all_refused(
        (("sweep", *out), "holds no sweep (no cells.json); give a grid with --config"),
        (("sweep", *out, "--status"), "holds no sweep"),
        (("sweep", *out, "--seeds", "1"), "--seeds, --set and --dry-run need a grid"),
        (("sweep", *out, "--config", "none"), "there is no grid none"),
        (("sweep", *out, "--config", grid, "--set", "lrr=1"), "unknown setting 'lrr'"),
        (("sweep", *out, "--config", grid, "--set", "lr=fast"), "lr must be a number, got 'fast'"),
        (("sweep", *out, "--config", grid, "--only", "seed=9"), "no cell of the 8 is left by --only"),
        (("sweep", *out, "--config", grid, "--known", known), "has no column 'cell'"),
        (
            ("sweep", *out, "--config", grid, "--known", future),
            "future.csv can't stand for finished cells: the table has settings that this smx does not know: width",
        ),
        (("sweep", *out, "--config", grid, "--collect", tmp_path), "is a folder"),
        (("sweep", *out, "--config", grid, "--collect", tmp_path / "t.xls"), "must end in .csv or .parquet"),
        (("sweep", *out, "--config", own), "the grid names code of yours, my_network:Net; give --trust-code"),
    )
    assert not (tmp_path / "out" / "cells").exists()
    for seeds in ("1-", "5-3", "a", "0-99999999"):
        assert "is no list of seeds" in smx("sweep", *out, "--config", grid, "--seeds", seeds).stderr


@pytest.mark.parametrize("kills", [1, pytest.param(5, marks=pytest.mark.long)])
def test_a_killed_sweep_ends_in_the_same_table(kills: int, swept: Path, grid: Path, tmp_path: Path) -> None:
    """Killed without warning at random moments, after its first cell has begun."""
    out, chance = tmp_path / "out", random.Random(kills)
    command = [sys.executable, "-m", "smx", "sweep", "--config", str(grid), "--out", str(out), "--jobs", "2"]
    command.append("--no-report")
    for _ in range(kills):
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL, env={**os.environ, "OMP_NUM_THREADS": "1"})
        checkpoints = 0
        while not checkpoints and process.poll() is None:
            time.sleep(0.02)
            checkpoints = sum(1 for _ in out.glob("cells/*/checkpoint.pt"))
        time.sleep(chance.uniform(0, 0.2))
        process.send_signal(signal.SIGKILL)
        process.wait()
    result = smx("sweep", "--config", grid, "--out", out, "--no-report")
    assert result.returncode == 0, result.stderr
    assert rows_of(out) == rows_of(swept)


def test_ctrl_c_says_how_to_go_on(
    grid: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*arguments: Any, **options: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("smx.workflows.sweep.sweep", interrupted)
    with pytest.raises(SystemExit) as end:
        main(["sweep", "--config", str(grid), "--out", str(tmp_path)])
    assert end.value.code == 130
    assert capsys.readouterr().err == "Interrupted; the same command goes on from the last checkpoints\n"


def test_a_sweep_that_leaves_cells_missing_has_not_succeeded(
    grid: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As on a full disk, where no error can be kept either."""
    add_cells(tmp_path, read_grid(grid).cells())
    report = status(tmp_path)
    monkeypatch.setattr("smx.workflows.sweep.sweep", lambda *arguments, **options: report)
    with pytest.raises(SystemExit) as end:
        main(["sweep", "--config", str(grid), "--out", str(tmp_path)])
    assert end.value.code == 1
    assert "0 done, 0 failed, 8 missing" in capsys.readouterr().out
    with pytest.raises(SystemExit) as end:
        main(["sweep", "--out", str(tmp_path), "--status"])
    assert end.value.code == 0


def test_another_sweep_has_the_folder(grid: Path, swept: Path) -> None:
    from smx import files

    with files.locked(swept):
        refused(smx("sweep", "--config", grid, "--out", swept), 2, "is in use by another run")


@pytest.mark.ray
@pytest.mark.timeout(900)  # Ray loads torch in each worker: minutes on a busy machine
def test_a_local_ray_cluster_gives_the_same_table(grid: Path, swept: Path, tmp_path: Path) -> None:
    """One of its two workers is killed while it trains."""
    out = tmp_path / "out"
    command = [sys.executable, "-m", "smx", "sweep", "--config", str(grid), "--out", str(out)]
    process = subprocess.Popen([*command, "--ray", "local", "--jobs", "2"], stderr=subprocess.PIPE, text=True)
    killed = 0
    while process.poll() is None and not killed:
        time.sleep(0.02)
        if any(out.glob("cells/*/checkpoint.pt")):
            for worker in workers_of_ray():
                os.kill(worker, signal.SIGKILL)
                killed = worker
                break
    _, errors = process.communicate(timeout=600)
    assert killed, errors
    assert process.returncode == 0, errors
    assert rows_of(out) == rows_of(swept)


def workers_of_ray() -> list[int]:
    """Return the processes that run a task of a cell now."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes()
        except OSError:
            continue
        if line.startswith(b"ray::_task"):
            found.append(int(path.parent.name))
    return found
