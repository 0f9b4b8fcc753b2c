"""Signals end every command with their exit code and one line, at any instant, and leave no process and no file."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from smx import files
from tests.conftest import python
from tests.processes import heed_interrupts, running
from tests.study.grids import SMALL, written

pytestmark = pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="looks at processes in /proc")

PATIENCE = 20
"""Seconds in which a command ends: generous, since other work may keep the machine busy."""
LINES = {signal.SIGINT: "Interrupted", signal.SIGTERM: "Terminated", signal.SIGHUP: "Hung up"}


class Ended(NamedTuple):
    code: int
    stderr: str
    temporary: list[Path]


def attack(
    arguments: tuple[str | Path, ...],
    place: Path,
    number: signal.Signals,
    seconds: float,
    *,
    begun: Callable[[], object] = lambda: True,
    everybody: bool = False,
) -> Ended:
    """Run a command with a TMPDIR of its own, and send it a signal so many seconds after `begun` says so.

    Args:
        everybody: the processes that it has started get it too, as from a terminal.
    """
    place.mkdir(exist_ok=True)

    command = [sys.executable, "-m", "smx", *map(str, arguments)]
    options = {"env": {**os.environ, "TMPDIR": str(place)}, "start_new_session": True, "preexec_fn": heed_interrupts}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)  # type: ignore[call-overload]
    within(120, lambda: process.poll() is not None or (heeds_signals(process.pid) and begun()))
    time.sleep(seconds)
    assert process.poll() is None, process.communicate()
    (os.killpg if everybody else os.kill)(process.pid, number)
    _, stderr = process.communicate(timeout=PATIENCE)
    assert within(PATIENCE, lambda: not running(process.pid))
    return Ended(process.returncode, stderr, list(place.iterdir()))


def within(seconds: float, condition: Callable[[], object]) -> bool:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it did not happen in time"
        time.sleep(0.005)
    return True


def heeds_signals(process: int) -> bool:
    """Whether SIGTERM no longer simply ends a process: Python itself leaves that as it is."""
    status = Path(f"/proc/{process}/status").read_text()
    caught = int(status.partition("SigCgt:")[2].split()[0], 16)
    return bool(caught >> (signal.SIGTERM - 1) & 1)


def check(ended: Ended, number: signal.Signals) -> None:
    assert ended.code == 128 + number, ended.stderr
    # Where a busy machine leaves no moment to clean up, multiprocessing's helper complains, after us, of semaphores.
    lines = [
        line for line in ended.stderr.splitlines() if "resource_tracker" not in line and "warnings.warn" not in line
    ]
    said = [line for line in lines if line.startswith(LINES[number])]
    assert len(said) == 1, ended.stderr
    assert lines[-1] == said[0]
    assert "Traceback" not in ended.stderr
    assert ended.temporary == []


def test_ctrl_c_at_any_instant(run: Path, tmp_path: Path) -> None:
    """From the first on, in which nothing is loaded yet; during imports, which swallow what is raised in them."""
    chance, out = random.Random(17), tmp_path / "out"
    out.mkdir()
    endless = ("--hidden", "16", "--phase1-epochs", "100000", "--device", "cpu")
    for instant in range(12):
        commands: tuple[tuple[str | Path, ...], ...] = (
            ("train", *endless, "--out", out / str(instant)),
            ("export", run / "model.pt", out / "m.onnx", "--layout", "fastest"),
            ("bench", run / "model.pt"),
        )
        seconds = 2 * chance.random() ** 2
        ended = attack(commands[instant % 3], tmp_path / "tmp", signal.SIGINT, seconds, everybody=instant % 2 == 0)
        check(ended, signal.SIGINT)
    assert not [path for path in out.rglob("*") if path.name.startswith(".smx")]
    assert not (out / "m.onnx").exists()


def test_a_sweep_is_ended_with_its_processes(tmp_path: Path) -> None:
    grid = {"base": {**SMALL["base"], "phase1_epochs": 10_000}, "grid": {"hidden": [[8]], "seed": [0, 1]}}
    out = tmp_path / "sweep"
    command = ("sweep", "--config", written(tmp_path / "grid.toml", grid), "--out", out, "--jobs", "2")
    ended = attack(
        command, tmp_path / "tmp", signal.SIGINT, 0.1, begun=lambda: any(out.glob("cells/*/*.pt")), everybody=True
    )
    check(ended, signal.SIGINT)
    assert "the same command goes on from the last checkpoints" in ended.stderr
    assert not [path for path in out.rglob("*") if path.name.startswith(".smx")]


def test_a_killed_command_leaves_no_process_and_what_it_leaves_in_tmpdir_is_removed(
    run: Path, exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "tmp"
    command = ("tune", exported, "--model", run / "model.pt")
    ended = attack(command, place, signal.SIGKILL, 1, begun=lambda: any(place.glob(".smx-*.folder")))
    assert ended.code == -signal.SIGKILL
    assert any(files.SCRATCH.fullmatch(path.name) for path in ended.temporary)
    (place / ".smx-0123456789ab.folder.txt").touch()
    monkeypatch.setattr("tempfile.tempdir", str(place))
    with files.scratch() as own:
        left = {path.name for path in place.iterdir() if not path.name.startswith("torchinductor_")}
        assert own.name in left
        assert len(left) == 2
    assert not own.exists()


@pytest.mark.parametrize("module", ["smx.ending", "threading", "smx.cli"])
def test_ctrl_c_while_the_first_modules_are_loaded(module: str) -> None:
    code = f"""
import builtins, os, signal, sys

signal.signal(signal.SIGINT, signal.default_int_handler)  # some are ignored in the background of a shell
load = builtins.__import__

def spy(name, *more):
    if name == {module!r}:
        os.kill(os.getpid(), signal.SIGINT)
    return load(name, *more)

builtins.__import__ = spy
from smx.__main__ import main
main()
"""
    result = python("-c", code)
    assert (result.returncode, result.stderr) == (130, "Interrupted.\n")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_while_a_file_is_written(number: signal.Signals, tmp_path: Path) -> None:
    code = """
import os, signal, subprocess, sys, time
from pathlib import Path
from smx import files
from smx.ending import end_on_signals, say_how_to_go_on

signal.signal(int(sys.argv[2]), signal.SIG_DFL)  # nohup lets it be ignored
end_on_signals()
say_how_to_go_on(lambda: "go on")
with files.scratch() as folder, files.replacing(sys.argv[1]) as temporary:
    (folder / "file").touch()
    assert temporary.exists()
    os.kill(os.getpid(), int(sys.argv[2]))
    while True:
        try:
            time.sleep(100)
        except BaseException:
            pass
"""
    place = tmp_path / "tmp"
    place.mkdir()
    (tmp_path / "old").write_text("old")
    environment = {**os.environ, "TMPDIR": str(place)}
    result = python("-c", code, tmp_path / "old", str(int(number)), env=environment)
    assert (result.returncode, result.stderr) == (128 + number, f"{LINES[number]}; go on\n")
    assert {*tmp_path.rglob("*")} == {place, tmp_path / "old"}


def test_a_signal_to_a_forked_process_is_its_own() -> None:
    code = """
import os, signal, time
from smx.ending import end_on_signals

for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
    signal.signal(number, signal.SIG_DFL)  # some are ignored in the background of a shell and under nohup
end_on_signals()
for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
    child = os.fork()
    if not child:
        time.sleep(100)
    time.sleep(0.2)
    os.kill(child, number)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) in (-number, 1)
time.sleep(0.5)
print("alive")
"""
    assert python("-c", code).stdout == "alive\n"


def test_an_ignored_signal_stays_ignored() -> None:
    """As in the background of a shell, or under nohup."""
    code = """
import os, signal
from smx.ending import end_on_signals

for number in (signal.SIGINT, signal.SIGHUP):
    signal.signal(number, signal.SIG_IGN)
end_on_signals()
for number in (signal.SIGINT, signal.SIGHUP):
    os.kill(os.getpid(), number)
print("alive")
"""
    assert python("-c", code).stdout == "alive\n"
