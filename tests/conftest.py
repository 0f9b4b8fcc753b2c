"""What many tests need: the real command, and one small run made with it."""

from __future__ import annotations

import atexit
import functools
import json
import os
import signal
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


SERVER = """
import contextlib, io, json, os, sys
import matplotlib.figure, sklearn.datasets, sklearn.model_selection, torch._dynamo
for line in sys.stdin:
    if not (child := os.fork()):
        break
    print("", os.waitpid(child, 0)[1], flush=True)
else:
    sys.exit()
commands, folder, environment = json.loads(line)
os.environ.clear()
os.environ.update(environment)
os.chdir(folder)
with os.fdopen(os.dup(1), "w") as answer:
    os.dup2(2, 1)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    from smx.cli import main
    answers = []
    for arguments in commands:
        with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
            try:
                main(arguments)
            except SystemExit as end:
                answers.append((end.code, out, err))
    json.dump([(code, out.getvalue(), err.getvalue()) for code, out, err in answers], answer)
"""


@functools.cache
def server() -> subprocess.Popen[str]:
    """Start the process that loads the libraries, nothing of smx, and forks for commands; it ends with this one."""
    command, pipe = [sys.executable, "-c", SERVER], subprocess.PIPE
    process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, start_new_session=True)
    atexit.register(process.communicate)
    return process


def smx_many(
    *commands: Sequence[str | Path], cwd: Path | None = None, env: dict[str, str] | None = None
) -> list[subprocess.CompletedProcess[str]]:
    """Run commands one after the other in one process, which starts with libraries that take seconds to load.

    Those of test_house, test_readme, test_nothing_outside and `python("-m", "smx")` start with nothing: there an import
    fails that smx forgets and the server makes good.
    """
    lines = [list(map(str, command)) for command in commands]
    process = server()
    assert process.stdin and process.stdout  # noqa: PT018
    try:
        print(json.dumps([lines, str(cwd or Path.cwd()), env or dict(os.environ)]), file=process.stdin, flush=True)
        content, _, status = process.stdout.readline().rpartition(" ")
    except BaseException:  # a time limit, say
        os.killpg(process.pid, signal.SIGKILL)
        server.cache_clear()
        raise
    assert status == "0\n", content
    answers = zip(lines, json.loads(content), strict=True)
    return [subprocess.CompletedProcess(line, code, out, err) for line, (code, out, err) in answers]


def smx(*arguments: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run one command so."""
    return smx_many(arguments, **options)[0]


def done(*arguments: str | Path, **options: Any) -> str:
    """Run one command, which must succeed, and return its standard output."""
    result = smx(*arguments, **options)
    assert result.returncode == 0, result.stderr
    return result.stdout


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
