from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from smx.errors import InputError, SmxError
from smx.subprocesses import in_subprocess
from tests.timing.fakes import die


def answer(value: int, *, fail: bool = False) -> tuple[int, int]:
    """Return the process and a value, or fail as a user's mistake does."""
    if fail:
        raise InputError("expected nothing")
    return os.getpid(), value


def write_and_sleep(path: Path) -> None:
    """Say which process this is, and do not end."""
    path.write_text(str(os.getpid()))
    time.sleep(600)


def test_a_call_is_answered_by_another_process() -> None:
    process, value = in_subprocess(answer, 3)
    assert process != os.getpid()
    assert value == 3
    with pytest.raises(InputError, match="expected nothing"):
        in_subprocess(answer, 3, fail=True)
    with pytest.raises(SmxError, match="the process of die was killed; is there enough memory"):
        in_subprocess(die)


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks at the process in /proc")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_process_ends_with_the_one_that_started_it(number: signal.Signals, tmp_path: Path) -> None:
    """Even where that is killed, and can end nothing itself; and after a KeyboardInterrupt, in Python."""
    note = tmp_path / "process"
    code = (
        "import pathlib, sys; from smx.subprocesses import in_subprocess; from tests import test_subprocesses as own\n"
    )
    code += "in_subprocess(own.write_and_sleep, pathlib.Path(sys.argv[1]))"
    command = [sys.executable, "-c", code, str(note)]
    parent = subprocess.Popen(command, stderr=subprocess.DEVNULL, preexec_fn=heed_ctrl_c)
    try:
        child = int(_within_a_minute(lambda: note.is_file() and note.read_text()))
    finally:
        parent.send_signal(number)
        parent.wait(60)
    assert _within_a_minute(lambda: not _runs(child))


def heed_ctrl_c() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # a shell's background job starts with it ignored


def _within_a_minute(condition: Callable[[], Any]) -> Any:
    for _ in range(600):
        if result := condition():
            return result
        time.sleep(0.1)
    raise AssertionError("it did not happen within a minute")


def _runs(process: int) -> bool:
    """Whether a process runs; one that has ended, but that nobody has waited for, does not."""
    try:
        return "\nState:\tZ" not in Path(f"/proc/{process}/status").read_text()
    except FileNotFoundError:
        return False
