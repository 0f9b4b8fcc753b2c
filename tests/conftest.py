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


LIBRARIES = "torch", "torch._dynamo", "sklearn.datasets", "sklearn.model_selection", "matplotlib.figure"
SERVER = """
import contextlib, importlib, io, json, os, sys
for name in sys.argv[1:]:
    importlib.import_module(name)
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
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                main(arguments)
            except SystemExit as end:
                answers.append((end.code, out, err))
    json.dump([(code, out.getvalue(), err.getvalue()) for code, out, err in answers], answer)
"""


@functools.cache
def server() -> subprocess.Popen[str]:
    """Start the process that loads the libraries, nothing of smx, and forks for commands; it ends with this one."""
    command, pipe = [sys.executable, "-c", SERVER, *LIBRARIES], subprocess.PIPE
    process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, start_new_session=True)
    atexit.register(process.communicate)
    return process


def smx_many(
    *commands: Sequence[str | Path], cwd: Path | None = None, env: dict[str, str] | None = None, **options: Any
) -> list[subprocess.CompletedProcess[str]]:
    """Run commands one after the other in one process, which starts with libraries that take seconds to load.

    With a `preexec_fn` it starts with nothing, as the commands of test_house, test_readme and test_nothing_outside do:
    an import that smx forgets, and that `LIBRARIES` make good, fails there.
    """
    lines = [list(map(str, command)) for command in commands]
    request = json.dumps([lines, str(cwd or Path.cwd()), env or dict(os.environ)]) + "\n"
    if options:
        answer = python("-c", SERVER, input=request, **options).stdout
    else:
        process = server()
        assert process.stdin and process.stdout  # noqa: PT018
        try:
            print(request, end="", file=process.stdin, flush=True)
            answer = process.stdout.readline()
        except BaseException:  # a time limit, say
            os.killpg(process.pid, signal.SIGKILL)
            server.cache_clear()
            raise
    content, _, status = answer.rpartition(" ")
    assert status.strip() == "0", answer
    answers = zip(lines, json.loads(content), strict=True)
    return [subprocess.CompletedProcess(line, code, out, err) for line, (code, out, err) in answers]


def smx(*arguments: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run one command so."""
    return smx_many(arguments, **options)[0]


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
