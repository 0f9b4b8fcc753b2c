"""The campaign in its smallest form. `make test-hostile` is the whole one."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest


@pytest.mark.long
def test_a_few_cases_of_each_attack(tmp_path: Path) -> None:
    few = ("--damage", "3", "--edits", "3", "--kills", "1", "--faults", "2", "--only", "export,predict,serve")
    path = tmp_path / "hostile.json"

    def campaign(*options: str) -> list[dict[str, Any]]:
        command = [sys.executable, "-m", "tests.hostile", *options, "--json", str(path)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=280, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        rows: list[dict[str, Any]] = json.loads(path.read_text())["attacks"]
        return rows

    rows = campaign(*few)
    assert {row["attack"] for row in rows} == {"damage", "edits", "kills", "faults"}
    assert sum(row["cases"] for row in rows) > 60
    assert not any(row["failures"] for row in rows)
    renewed = campaign("--damage=0", "--edits=0", "--faults=0", "--kills=2", "--only=predict", "--renew")
    again = [row["on"] for row in rows].index("predict")
    assert renewed[again]["cases"] == rows[again]["cases"] + 1
    assert [*renewed[:again], *renewed[again + 1 :]] == [*rows[:again], *rows[again + 1 :]]
