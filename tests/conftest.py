"""What many tests need: the real command, and one small run made with it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

SMALL = ("--hidden", "24,16", "--phase1-epochs", "3", "--phase2-epochs", "3", "--lr", "0.01", "--device", "cpu")


def python(*arguments: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run Python in a process of its own."""
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=600, check=False, **options)


def smx(*arguments: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run the command as a user does."""
    return python("-m", "smx", *arguments, **options)


MANY = """
import contextlib, io, json, sys
from smx.cli import main
answers = []
for arguments in json.loads(sys.argv[1]):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main(arguments)
        except SystemExit as end:
            answers.append((end.code, out, err))
print(json.dumps([(code, out.getvalue(), err.getvalue()) for code, out, err in answers]))
"""


def smx_many(*commands: Sequence[str | Path], **options: Any) -> list[subprocess.CompletedProcess[str]]:
    """Run several commands one after the other in one process, because starting Python and torch takes seconds."""
    lines = [list(map(str, command)) for command in commands]
    result = python("-c", MANY, json.dumps(lines), **options)
    assert result.returncode == 0, result.stderr
    answers = zip(lines, json.loads(result.stdout), strict=True)
    return [subprocess.CompletedProcess(line, code, out, err) for line, (code, out, err) in answers]


def all_refused(*cases: tuple[Sequence[str | Path], str], **options: Any) -> None:
    """Assert that each command ends in one line of error that says the part beside it, with exit code 2."""
    for result, (_, part) in zip(smx_many(*(command for command, _ in cases), **options), cases, strict=True):
        refused(result, 2, part)


def refused(result: subprocess.CompletedProcess[str], exit_code: int, *parts: str) -> None:
    """Assert that a command ended in one line of error that says the given parts, with an exit code."""
    assert result.returncode == exit_code, result.stderr
    assert "Traceback" not in result.stderr
    errors = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    assert len(errors) == 1, result.stderr
    for part in parts:
        assert part in errors[0], errors[0]


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a small run on the digits."""
    out = tmp_path_factory.mktemp("run") / "small"
    result = smx("train", *SMALL, "--out", out)
    assert result.returncode == 0, result.stderr
    return out


@pytest.fixture(scope="session")
def exported(run: Path) -> Path:
    """Return the ONNX file of that run."""
    path = run.parent / "small.onnx"
    result = smx("export", run / "model.pt", path)
    assert result.returncode == 0, result.stderr
    return path


@pytest.fixture(scope="session")
def mnist_dir() -> Path:
    """Return where MNIST lies; tests that want it are skipped on a machine without it."""
    folder = Path(os.environ.get("SMX_DATA_DIR", "absent"))
    if not (folder / "MNIST" / "raw" / "train-images-idx3-ubyte").is_file():
        pytest.skip("MNIST is not on this machine; set SMX_DATA_DIR")
    return folder
