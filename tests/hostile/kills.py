"""Commands that are killed at any instant: what they leave is whole, nothing goes on, and the next run ends well."""

from __future__ import annotations

import random
import shutil
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import smx
from tests.hostile.commands import Command, environment
from tests.hostile.files import Found
from tests.processes import heed_interrupts, running

SIGNALS = (signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
CODES = {signal.SIGKILL: (-9,), signal.SIGTERM: (143, -15), signal.SIGINT: (130, -2)}
MAIN = str(Path(smx.__file__).with_name("__main__.py"))
"""Is in every stack, but for that of a Ctrl-C which came before smx began, and which Python itself answers."""
LONGEST = 60
"""Seconds in which a command ends after a signal, on a busy machine."""
SECONDS = 20
"""In which everything that a killed command started must be gone, on a busy machine."""


def campaign(command: Command, kills: int, folder: Path, seed: int = 0) -> Found:
    """Kill a command so many times, each at an instant between its start and its end, then let it end.

    Where it resumes, a run that came to its end is compared with one that nobody disturbed, and the next begins anew.
    """
    found, draw = Found(), random.Random(f"{command.name} {seed}")
    calm, out, temporary = (folder / command.name / name for name in ("calm", "out", "tmp"))
    for each in (calm, out, temporary):
        each.mkdir(parents=True)
    began = time.monotonic()
    if command.ends:
        ended = command.run(calm, temporary)
        assert ended.returncode == 0, ended.stderr
    lasts = time.monotonic() - began if command.ends else 6.0

    def judge(outcome: str, fault: str | None) -> None:
        found.outcomes["FAILED" if fault else outcome] += 1
        if fault:
            found.failures.append(f"{command.name}: {outcome}: {fault}")

    for i in range(kills):
        number = draw.choice(SIGNALS)
        code, error, left = _killed(command, out, temporary, draw.uniform(0, lasts), number)
        outcome = "ended before" if code == 0 and command.ends else f"{number.name}"
        fault = _fault(command, out, calm, done=code == 0)
        begun = MAIN in error or "KeyboardInterrupt" not in error
        if begun and code not in (0, *CODES[number]):
            fault = f"kill {i}: exit code {code}: {error[-300:]!r}"
        if begun and ("Fatal" in error or "Traceback" in error):
            fault = f"kill {i}: {error[-300:]!r}"
        if left:
            fault = f"kill {i}: processes went on: {left}"
        judge(outcome, fault)
        if code == 0 and command.resumes:
            shutil.rmtree(out)
            out.mkdir()
    if command.ends:
        ended = command.run(out, temporary)
        fault = _fault(command, out, calm, done=True) if ended.returncode == 0 else ended.stderr[-300:]
        rest = command.leftovers(out, temporary)
        judge("the run after them", fault or (f"it leaves {rest}" if rest else None))
    names = [path.name for path in temporary.iterdir()]
    judge("TMPDIR after them", f"it holds {names}" if names else None)
    return found


def _killed(
    command: Command, out: Path, temporary: Path, after: float, number: signal.Signals
) -> tuple[int, str, list[str]]:
    """Run a command and send it a signal; return its exit code, its errors, and what of its session did not end."""
    log = temporary.parent / "stderr"
    with log.open("wb") as stderr:
        process = subprocess.Popen(
            command.line(out),
            env=environment(temporary),
            stdout=subprocess.DEVNULL,
            stderr=stderr,
            start_new_session=True,
            preexec_fn=heed_interrupts,
        )
        with suppress(subprocess.TimeoutExpired):
            process.wait(after)
        process.send_signal(number)
        try:
            code = process.wait(LONGEST)
        except subprocess.TimeoutExpired:
            process.kill()
            code = process.wait()
            error = f"it went on for more than {LONGEST} s after {number.name}"
            return code, error, [error]
    end = time.monotonic() + SECONDS
    while (left := running(process.pid)) and time.monotonic() < end:
        time.sleep(0.05)
    for pid in left:
        subprocess.run(["kill", "-9", pid], check=False)
    return code, log.read_text(errors="replace"), left


def _fault(command: Command, out: Path, calm: Path, *, done: bool) -> str | None:
    """Say what is wrong with what a command has left, and beside what it left where nobody disturbed it."""
    if fault := command.fault(out, done=done):
        return fault
    if done and command.exact:
        for name in command.leaves:
            if (out / name).read_bytes() != (calm / name).read_bytes():
                return f"{name} is another than without the kills"
    return None
