"""Commands on a machine that has too little: a disk that fills up, little memory, few open files.

Each ends well, or in one line; what lay there before is still there, or whole and new.
"""

from __future__ import annotations

import os
import random
import resource
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.hostile.commands import Command
from tests.hostile.files import Found

CODES = (0, 1, 2)
KIB, MIB = 2**10, 2**20


@dataclass(frozen=True)
class Limit:
    """What a command lacks."""

    name: str
    set: Callable[[random.Random], Callable[[], None]]


def _file_size(draw: random.Random) -> Callable[[], None]:
    size = draw.choice([0, 1, 100, 512, 4 * KIB, 20 * KIB, 50 * KIB])

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # so that writing fails, as on a full disk
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))

    return limit


def _memory(draw: random.Random) -> Callable[[], None]:
    size = draw.choice([1200, 1500, 2000, 3000, 4000]) * MIB  # with less, libraries of others crash while they load
    return lambda: resource.setrlimit(resource.RLIMIT_AS, (size, size))


def _open_files(draw: random.Random) -> Callable[[], None]:
    count = draw.choice([10, 16, 24, 40, 80])
    return lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (count, count))


LIMITS = (
    Limit("files of a few KiB at most", _file_size),
    Limit("little memory", _memory),
    Limit("few open files", _open_files),
)


def campaign(limit: Limit, commands: list[Command], cases: int, folder: Path, seed: int = 0) -> Found:
    """Run commands under a limit, each in turn, over what an earlier run of theirs left."""
    found, draw = Found(), random.Random(f"{limit.name} {seed}")
    ending = [command for command in commands if command.ends]
    for case in range(cases):
        command = ending[case % len(ending)]
        place = folder / f"{limit.name}-{case}"
        out, temporary = place / "out", place / "tmp"
        out.mkdir(parents=True)
        temporary.mkdir()
        done = command.run(out, temporary, limit.set(draw))
        fault = _fault(command, out, done)
        found.outcomes["FAILED" if fault else "ended well" if done.returncode == 0 else "one line"] += 1
        if fault:
            found.failures.append(f"{command.name} with {limit.name}, case {case}: {fault}")
        shutil.rmtree(place)
    return found


def full_disk(commands: list[Command], sizes: list[int], folder: Path) -> Found:
    """Run commands on a file system of so many KiB, which needs the right to mount one; nothing without it."""
    found = Found()
    for command in (command for command in commands if command.ends):
        for size in sizes:
            place = folder / f"disk-{command.name}-{size}"
            place.mkdir()
            with _file_system(place, size) as mounted:
                if not mounted:
                    return found
                out, temporary = place / "out", place / "tmp"
                out.mkdir()
                temporary.mkdir()
                done = command.run(out, temporary)
                fault = _fault(command, out, done)
                found.outcomes["FAILED" if fault else "ended well" if done.returncode == 0 else "one line"] += 1
                if fault:
                    found.failures.append(f"{command.name} on a disk of {size} KiB: {fault}")
    return found


@contextmanager
def _file_system(place: Path, size: int) -> Iterator[bool]:
    options = ["-o", f"size={size}k", "tmpfs", str(place)]
    may = os.geteuid() == 0 and shutil.which("mount") is not None
    mount = ["mount", "-t", "tmpfs", *options]
    mounted = may and subprocess.run(mount, capture_output=True, check=False).returncode == 0
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", "-l", str(place)], check=True)


def _fault(command: Command, out: Path, done: subprocess.CompletedProcess[str]) -> str | None:
    """Say what is wrong with how a command ended; None if nothing is."""
    lines = [line for line in done.stderr.splitlines() if line.startswith("Error: ")]
    said = f"exit code {done.returncode}: {done.stderr[-400:]!r}"
    if done.returncode not in CODES or "Traceback" in done.stderr:
        return said
    if done.returncode and len(lines) != 1:
        return f"{len(lines)} lines of error, {said}"
    if fault := command.fault(out, done=done.returncode == 0):
        return f"{fault}, {said}"
    rest = command.leftovers(out)
    return f"it leaves {rest}" if rest else None
