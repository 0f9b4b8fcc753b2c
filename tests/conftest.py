"""What many tests need: the real command, and one small run made with it."""

from __future__ import annotations

import io
import multiprocessing
import os
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import pytest

from smx.cli import main
from smx.subprocesses import hidden_main

os.environ.setdefault("OMP_NUM_THREADS", "1")  # two workers with two threads each wait for each other

SMALL = ("--hidden", "24,16", "--phase1-epochs", "3", "--phase2-epochs", "3", "--lr", "0.01", "--device", "cpu")


def python(*arguments: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run Python in a process of its own."""
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=600, check=False, **options)


FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(
    ["torch._dynamo", "sklearn.datasets", "sklearn.model_selection", "matplotlib.figure", "tests.warmed"]
)


def smx_many(*commands: Sequence[str | Path], **place: Any) -> list[subprocess.CompletedProcess[str]]:
    """Run commands one after the other in one process, which starts with libraries that take seconds to load.

    Others start with nothing (test_house, test_readme, test_nothing_outside): an import that smx forgets fails there.
    """
    with hidden_main(), ProcessPoolExecutor(1, FORKS) as process:
        return process.submit(here, [list(map(str, command)) for command in commands], **place).result()


def here(commands: list[list[str]], *, cwd: Path = Path(), env: Any = None) -> list[subprocess.CompletedProcess[str]]:
    os.chdir(cwd)
    os.environ |= env or {}
    answers = []
    for arguments in commands:
        with redirect_stdout(io.StringIO()) as out, redirect_stderr(io.StringIO()) as err:
            try:
                main(arguments)
            except SystemExit as end:
                answers.append((arguments, int(end.code or 0), out.getvalue(), err.getvalue()))
    return [subprocess.CompletedProcess(*answer) for answer in answers]


def smx(*arguments: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run one command so."""
    return smx_many(arguments, **options)[0]


def done(*arguments: str | Path) -> None:
    """Run one command, which must succeed."""
    assert (result := smx(*arguments)).returncode == 0, result.stderr


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
    done("train", *SMALL, "--out", out)
    return out


@pytest.fixture(scope="session")
def exported(run: Path) -> Path:
    """Return the ONNX file of that run."""
    path = run.parent / "small.onnx"
    done("export", run / "model.pt", path)
    return path


@pytest.fixture(scope="session")
def mnist_dir() -> Path:
    """Return where MNIST lies; tests that want it are skipped on a machine without it."""
    folder = Path(os.environ.get("SMX_DATA_DIR", "absent"))
    if not (folder / "MNIST" / "raw" / "train-images-idx3-ubyte").is_file():
        pytest.skip("MNIST is not on this machine; set SMX_DATA_DIR")
    return folder
