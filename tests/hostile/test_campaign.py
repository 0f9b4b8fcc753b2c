"""The campaign in its smallest form. `make test-hostile` is the whole one."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.long
def test_a_few_cases_of_each_attack(tmp_path: Path) -> None:
    few = ("--damage", "3", "--edits", "3", "--kills", "1", "--faults", "2", "--only", "export,predict,serve")
    command = [sys.executable, "-m", "tests.hostile", *few, "--json", str(tmp_path / "hostile.json")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((tmp_path / "hostile.json").read_text())
    assert {row["attack"] for row in found["attacks"]} == {"damage", "edits", "kills", "faults"}
    assert sum(row["cases"] for row in found["attacks"]) > 60
    assert not found["failures"]
