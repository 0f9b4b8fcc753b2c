"""The examples, as a newcomer runs them."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import onnx
import pytest

from tests.conftest import python, smx_many

EXAMPLES = Path(__file__).parent.parent / "examples"


@pytest.mark.long
def test_the_cnn(tmp_path: Path) -> None:
    result = python(EXAMPLES / "cnn.py", cwd=tmp_path)
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
    *results, groups = smx_many(*(shlex.split(each)[1:] for each in (*commands, "smx inspect mine.onnx")), cwd=tmp_path)
    assert not any(result.returncode for result in results), results
    assert "parity holds" in results[-1].stdout
    for layer in ("gelu", "blocks.0.relu", "blocks.0.relu_1", "blocks.2.relu", "blocks.2.relu_1"):
        assert f"│ {layer} " in groups.stdout
