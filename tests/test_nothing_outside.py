"""Commands write nothing outside their output folder and look nothing up: neither smx nor the libraries below it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import SMALL, python
from tests.study.grids import SMALL as GRID
from tests.study.grids import written

OPENING = "openat,open"
CHANGING = "creat,mkdir,mkdirat,rename,renameat,renameat2,link,linkat,symlink,symlinkat,unlink,unlinkat,rmdir,truncate"
CALLING = "connect,sendto,sendmsg,sendmmsg"
CALL = re.compile(r"(?:\d+ +)?(\w+)\((.*)")
"""A line of strace: the call and the rest."""
PATH = re.compile(r'(?:(?:AT_FDCWD|\d+)<([^>]*)>, )?"([^"]*)"')
"""One that a call names, with -y: the folder that a relative one starts from, and the path."""


def strace() -> list[str]:
    """Return the beginning of a command that traces another one; nothing where strace is missing, or may not trace."""
    command = ["strace", "-f", "-y", "-qq", "--seccomp-bpf", "-e", f"trace={OPENING},{CHANGING},{CALLING}", "-o"]
    found = shutil.which("strace")
    return command if found and subprocess.run([*command, "/dev/null", "true"], check=False).returncode == 0 else []


STRACE = strace()


def traced(folder: Path, *command: str | Path) -> tuple[set[Path], list[str]]:
    """Run a command in `folder` with an empty HOME and TMPDIR, which must be empty afterwards.

    Returns:
        The paths outside `folder/out` and TMPDIR that were opened for writing or made, and the calls to the network;
        both are empty without strace.
    """
    home, temporary, log = folder / "home", folder / "tmp", folder / "strace.log"
    for each in (home, temporary, folder / "out"):
        each.mkdir(exist_ok=True)
    names = ("PATH", "PYTHONPATH", "OMP_NUM_THREADS", "LD_LIBRARY_PATH")
    env = {name: os.environ[name] for name in names if name in os.environ}
    env |= {"HOME": str(home), "TMPDIR": str(temporary), "PYTHONDONTWRITEBYTECODE": "1"}
    trace = [*STRACE, str(log)] if STRACE else []
    done = subprocess.run([*trace, *command], cwd=folder, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert [list(home.rglob("*")), list(temporary.rglob("*"))] == [[], []]
    if not STRACE:
        return set(), []
    lines = log.read_text(errors="replace").splitlines()
    assert any("sitecustomize" in line or ".py" in line for line in lines), "strace saw nothing"
    network = [line for line in lines if re.search(r"(connect|send\w+)\(.*AF_INET", line)]
    changed = set()
    for match in filter(None, map(CALL.match, lines)):
        call, rest = match.groups()
        opened = call in OPENING.split(",") and re.search("O_WRONLY|O_RDWR|O_CREAT|O_TRUNC", rest)
        if (opened or call in CHANGING.split(",")) and " = -1 " not in rest:
            changed |= {Path(os.path.normpath(Path(start or folder, path))) for start, path in PATH.findall(rest)}
    allowed = (folder / "out", temporary, Path("/dev"), Path("/proc"))
    return {path for path in changed if not any(path.is_relative_to(each) for each in allowed)}, network


def smx(folder: Path, *arguments: str | Path) -> None:
    """Run a command of smx and assert that it leaves nothing and calls nobody."""
    assert traced(folder, sys.executable, "-m", "smx", *arguments) == (set(), [])


@pytest.mark.long
def test_training_and_an_export(tmp_path: Path) -> None:
    smx(tmp_path, "train", *SMALL, "--phase1-epochs", "1", "--phase2-epochs", "1", "--out", "out/run")
    assert (tmp_path / "out" / "run" / "figures").is_dir()
    smx(tmp_path, "export", "out/run/model.pt", "out/model.onnx")


def test_the_commands_of_the_base_install(exported: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.zeros((2, 64), np.uint8))
    (tmp_path / "out").mkdir()
    shutil.copy(exported, tmp_path / "out" / "model.onnx")
    smx(tmp_path, "predict", "out/model.onnx", "x.npy")
    smx(tmp_path, "inspect", "out/model.onnx")
    smx(tmp_path, "tune", "out/model.onnx", "--max-threads", "1", "--rounds", "20")


@pytest.mark.long
def test_a_bench_with_its_figure(run: Path, tmp_path: Path) -> None:
    options = ("--baselines", "relu", "--batch-sizes", "1", "--rounds", "2")
    smx(tmp_path, "bench", run / "model.pt", *options, "--plot", "out/bench.png")
    assert (tmp_path / "out" / "bench.png").is_file()


@pytest.mark.long
def test_the_other_commands(run: Path, exported: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    smx(tmp_path, "verify", run / "model.pt", exported, "--batch-sizes", "16", "--json", "out/verify.json")
    smx(tmp_path, "report", run, "--out", "out/report.html")
    grid = written(tmp_path / "grid.toml", GRID)
    smx(tmp_path, "sweep", "--config", grid, "--jobs", "2", "--out", "out/study", "--collect", "out/all.csv")
    smx(tmp_path, "sweep", "--out", "out/study", "--latency")
    smx(tmp_path, "price", "--batch-sizes", "1,2", "--widths", "4,8", "--rounds", "3", "--out", "out/prices.json")
    smx(tmp_path, "bench-train", "--hidden", "8", "--batch-sizes", "4", "--rounds", "2", "--json", "out/train.json")
    smx(tmp_path, "completion", "bash")
    serve = ("timeout", "--preserve-status", "-s", "TERM", "15", sys.executable, "-m", "smx", "serve", exported)
    assert traced(tmp_path, *serve, "--port", "0") == (set(), [])


@pytest.mark.skipif(not STRACE, reason="needs strace")
def test_what_is_written_and_called_is_noticed(tmp_path: Path) -> None:
    """Otherwise the tests above would notice nothing either."""
    code = f"""
import pathlib, socket, sys
pathlib.Path({str(tmp_path / "elsewhere")!r}).touch()
pathlib.Path("folder").mkdir()
pathlib.Path("out/a").touch()
pathlib.Path("out/a").rename("b")
socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"", ("127.0.0.1", 9))
"""
    changed, network = traced(tmp_path, sys.executable, "-c", code)
    assert changed == {tmp_path / name for name in ("elsewhere", "folder", "b")}
    assert len(network) == 1
    assert "127.0.0.1" in network[0]


LOADED_FIRST = """
import sys, types
sys.modules["onnxruntime"] = types.ModuleType("onnxruntime")
sys.modules["onnxruntime"].disable_telemetry_events = lambda: print("off")
import smx
"""
ASKED = "import smx.runtime, os; print(os.environ['ORT_DISABLE_TELEMETRY'])"


@pytest.mark.parametrize(
    ("code", "given", "said"),
    [(ASKED, {}, "1"), (ASKED, {"ORT_DISABLE_TELEMETRY": "0"}, "0"), (LOADED_FIRST, {}, "off")],
)
def test_telemetry_is_off_before_onnx_runtime_is_loaded(code: str, given: dict[str, str], said: str) -> None:
    env = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"} | given
    assert python("-c", code, env=env).stdout.strip() == said
