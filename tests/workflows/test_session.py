"""A Python session as the README shows it: without the command line, and as a script that needs no main guard."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

SESSION = """
import smx

settings = {"data": "digits", "hidden": [32], "phase1_epochs": 5, "phase2_epochs": 5, "lr": 0.01, "device": "cpu"}
run = smx.train(settings, out="run")
model = run.model.build()
smx.export.export_onnx(model, "digits.onnx", example_input=run.model.example_input(), layout="sorted")
report = smx.verify("run/model.pt", "digits.onnx", locate=True)
assert report.passed, report.location
latency = smx.bench("run/model.pt", baselines=["relu"], batch_sizes=[1, 16], rounds=2)
print({row.name: round(row.ratio, 2) for row in latency.results if row.batch_size == 16})
digits = smx.data.load("digits")
found = smx.classify("digits.onnx", digits.test.x[:100])
print("accuracy", (found.indices == digits.test.y[:100]).mean())
print(smx.describe("digits.onnx").layers[0]["groups"])
"""
assert len(SESSION.split("\n")) - 2 <= 15


def test_a_session_of_fifteen_lines(tmp_path: Path) -> None:
    (tmp_path / "session.py").write_text(SESSION)
    result = subprocess.run(
        [sys.executable, "session.py"], cwd=tmp_path, env=os.environ, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    latency, accuracy, groups = result.stdout.splitlines()
    assert latency.startswith("{'scatter': ")
    assert float(accuracy.split()[1]) > 0.7
    assert "'relu': " in groups
