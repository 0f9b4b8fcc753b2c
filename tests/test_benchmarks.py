"""Every benchmark runs, in its smallest form, and its result fills its table."""

from __future__ import annotations

import json
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from tests.test_house import ROOT

FILES = [
    "resolution.py",
    "tune_check.py",
]


@pytest.mark.parametrize("file", FILES)
def test_a_benchmark_in_its_smallest_form(file: str, tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    command = [sys.executable, str(ROOT / "benchmarks" / file), "--smallest", "--json", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    result = json.loads(path.read_text())
    tables = runpy.run_path(str(ROOT / "benchmarks" / "tables.py"))
    table = tables["TABLES"].get(Path(file).stem.replace("_", "-"))
    if table is not None:
        table.__globals__["result"] = lambda name: result
        assert table().count("\n") > 2
