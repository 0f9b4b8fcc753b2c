"""Every benchmark runs in its smallest form, so that the numbers in the texts can be measured again."""

from __future__ import annotations

import json
import os
import runpy
import shutil
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from smx.subprocesses import hidden_main
from tests.conftest import FORKS, done, python

ROOT = Path(__file__).parent.parent
SERVING = [
    pytest.param(name, marks=pytest.mark.serving) for name in ("serving_hostile", "serving_load", "install_size")
]
LONG = [
    pytest.param(name, marks=pytest.mark.long)
    for name in ("layouts", "opsets", "large_export", "resolution", "tune_check", "cells", "prices", "fastest", "rules")
]
BENCHMARKS = ("commit_rule", "tasks", "fine_tuning", *LONG, *SERVING)


def benchmark(name: str, *arguments: str | Path, cwd: Path) -> None:
    """Run a benchmark in a process that has loaded torch, see `tests.conftest.smx_many`."""
    with hidden_main(), ProcessPoolExecutor(1, FORKS) as process:
        process.submit(as_script, name, [str(argument) for argument in arguments], cwd).result()


def as_script(name: str, arguments: list[str], cwd: Path) -> None:
    os.chdir(cwd)
    script = ROOT / "benchmarks" / f"{name}.py"
    sys.path.insert(0, str(script.parent))
    sys.argv = [str(script), "--smallest", *arguments]
    os.environ["PYTHONPATH"] = str(ROOT)  # for what it starts
    try:
        runpy.run_path(str(script), run_name="__main__")
    except SystemExit as end:
        if end.code:
            raise RuntimeError(f"{name} ended with {end.code}") from end


def numbers(content: Any) -> list[float]:
    """Return all numbers of a JSON value."""
    if isinstance(content, dict | list):
        return [
            number for part in (content.values() if isinstance(content, dict) else content) for number in numbers(part)
        ]
    return [content] if isinstance(content, int | float) and not isinstance(content, bool) else []


@pytest.mark.parametrize("name", BENCHMARKS)
def test_a_benchmark_in_its_smallest_form(name: str, tmp_path: Path) -> None:
    if name == "serving_load" and shutil.which("wrk") is None:
        pytest.skip("wrk is not on this machine")
    benchmark(name, "--json", tmp_path / "out.json", cwd=tmp_path)
    assert numbers(json.loads((tmp_path / "out.json").read_text()))


def test_the_papers_network_is_a_model(tmp_path: Path) -> None:
    from smx.modelfile import load_model

    benchmark("paper_model", tmp_path / "paper.pt", cwd=tmp_path)
    assert str(load_model(tmp_path / "paper.pt").architecture) == "784-24-16-10"


def test_the_cost_of_a_study_is_added_up(tmp_path: Path) -> None:
    grid = tmp_path / "grid.toml"
    grid.write_text(
        'base = {hidden = [4], phase1_epochs = 1, phase2_epochs = 1}\ngrid = {method = ["relu", "tanh"], seed = [0]}\n'
    )
    done("sweep", "--config", grid, "--out", tmp_path / "sweep", "--no-report", "--only", "method=relu")
    script = ROOT / "benchmarks" / "study_cost.py"
    result = python(script, tmp_path / "sweep", "--config", grid, "--json", "-")
    assert result.returncode == 0, result.stderr
    content = json.loads(result.stdout)
    assert (content["cells"], content["measured"], content["seeds"]) == (2, 1, [0])
    assert content["processor_hours_by_method"].keys() == {"relu"}
    assert content["machine"]["torch"]
