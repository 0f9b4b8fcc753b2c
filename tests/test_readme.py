"""The README is true: its example runs, and its numbers are those of docs/results."""

from __future__ import annotations

import json
import re
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.faults import KINDS
from tests.test_house import ROOT

README = (ROOT / "README.md").read_text()


def result(name: str) -> Any:
    return json.loads((ROOT / "docs" / "results" / name).read_text())


BEFORE = """
import torch
from sklearn.datasets import load_digits

digits = load_digits()
x, y = torch.tensor(digits.images[:, None] / 16, dtype=torch.float32), torch.tensor(digits.target)


def fit(net, x, y):
    adam = torch.optim.Adam(net.parameters(), lr=3e-3)
    for _ in range(40):
        adam.zero_grad()
        torch.nn.functional.cross_entropy(net(x), y).backward()
        adam.step()
"""
AFTER = """
assert (net(x).argmax(1) == y).float().mean() > 0.9
"""


def test_the_examples_run(tmp_path: Path) -> None:
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    code = "\n".join([BEFORE, *blocks, AFTER])
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "[0 1 2 3 4]" in done.stdout
    assert (tmp_path / "net.onnx").is_file()


@pytest.mark.parametrize("name", ["README.md", "docs/layouts.md", "docs/training.md", "runtime/README.md"])
def test_the_tables_are_those_of_the_results(name: str) -> None:
    tables = runpy.run_path(str(ROOT / "benchmarks" / "tables.py"))
    text = (ROOT / name).read_text()
    assert name in tables["TEXTS"]
    assert "<!-- table: " in text
    assert tables["filled"](text) == text, "run python benchmarks/tables.py"


def test_the_accuracies_are_the_runs() -> None:
    metrics = result("mnist-train.json")["metrics"]
    assert f"test accuracy {metrics['phase1']['test_accuracy']:.4f} with the choices committed" in README
    assert f"**{metrics['phase2']['test_accuracy']:.4f}** after phase 2" in README
    digits = result("digits-train.json")["metrics"]["phase2"]["test_accuracy"]
    assert digits >= 0.96
    assert f"accuracy of **{digits:.4f}**" in README
    images = result("mnist-cnn-train.json")["metrics"]["phase2"]["test_accuracy"]
    assert images >= 0.985
    assert f"test accuracy\n**{images:.4f}** ([`mnist-cnn-train.json`]" in README


def test_the_parity_is_the_verifications() -> None:
    rows = [row for row in result("mnist-verify-scatter.json")["comparisons"] if row["inputs"] == "mnist test"]
    assert all(row["examples"] == 10_000 and row["agreement"] == 1 for row in rows)
    assert f"at most {max(row['max_abs'] for row in rows):.1e}, and" in README
    assert all(row["passed"] and row["scale"] == 1 for row in rows)
    rms = [max(row["arbitration"][side] for row in rows) for side in ("error_rms", "reference_error_rms")]
    assert (
        f"the file's answers are {rms[0]:.1e} off by root mean square, PyTorch's own in float32 {rms[1]:.1e}:" in README
    )


def test_the_planted_faults_are_counted() -> None:
    assert f"All {len(KINDS)} kinds are caught" in README
