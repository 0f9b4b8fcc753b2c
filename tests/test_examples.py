"""The examples, as a newcomer runs them."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import onnx

from tests.conftest import smx

EXAMPLES = Path(__file__).parent.parent / "examples"


def test_the_cnn(tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, EXAMPLES / "cnn.py"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    accuracy = re.search(r"test accuracy (\S+)", result.stdout)
    assert accuracy is not None
    assert float(accuracy[1]) > 0.9
    assert result.stdout.endswith(": ok\n")
    onnx.checker.check_model(tmp_path / "cnn.onnx")


def test_a_network_of_your_own(tmp_path: Path) -> None:
    """The commands are those of the README."""
    shutil.copy(EXAMPLES / "my_network.py", tmp_path)
    commands = [line for line in (EXAMPLES / "README.md").read_text().splitlines() if line.startswith("smx ")]
    assert [command.split()[1] for command in commands] == ["train", "export", "verify"]
    for command in commands:
        result = smx(*shlex.split(command)[1:], cwd=tmp_path)
        assert result.returncode == 0, result.stderr
    assert "parity holds" in result.stdout
    groups = smx("inspect", "mine.onnx", cwd=tmp_path).stdout
    for layer in ("gelu", "blocks.0.relu", "blocks.0.relu_1", "blocks.2.relu", "blocks.2.relu_1"):
        assert f"│ {layer} " in groups
