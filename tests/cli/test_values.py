"""Absurd values of every option that a command has: one line, never a traceback."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest

from smx.cli import main
from smx.cli.group import as_failure
from smx.cli.options import Commas
from smx.errors import SmxError
from tests.conftest import python, refused, smx_many

VALUES: tuple[str, ...] = ("-1", "0", "1e10", f"{10**10}", f"{2**31}", f"{2**63}", f"{10**30}", "1" * 5000)
VALUES += ("nan", "-inf", "inf", "1e400", "", " ", "١٢", "²", "0x10", "1_0", "1,1," * 9, "[" * 5000, "\udcff")
FAILS = {  # whatever else is given, the command ends before its work
    "train": ("--data", "none.npz"),
    "sweep": ("--out", "out", "--config", "none.toml"),
    "report": ("none.parquet",),
    "export": ("none.pt", "none.onnx"),
    "verify": ("none.pt", "none.onnx"),
    "bench": ("none.onnx",),
    "bench-train": ("--plot", "none/none.png"),
    "tune": ("none.onnx",),
    "price": ("--out", "none/none.json"),
    "predict": ("none.onnx", "none.npy"),
    "serve": ("none.onnx",),
    "inspect": ("none.onnx",),
    "completion": ("none",),
}
NUMBERS = click.IntRange | click.FloatRange


def options(command: click.Command) -> Iterator[click.Option]:
    """Yield the options that take a value, other than paths and one of a few words."""
    for param in command.params:
        paths = isinstance(param.type, click.Path | click.Choice) or param.type.name == "path"
        if isinstance(param, click.Option) and not param.is_flag and not paths:
            yield param


def is_number(kind: click.ParamType[Any]) -> bool:
    return isinstance(kind.kind if isinstance(kind, Commas) else kind, NUMBERS)


def test_no_value_of_an_option_ends_in_a_traceback(tmp_path: Path) -> None:
    assert FAILS.keys() == main.commands.keys()
    cases = [
        (name, option.opts[0], value)
        for name, command in main.commands.items()
        for option in options(command)
        for value in VALUES
        if (option.opts[0], value) != ("--config", "")
    ]
    assert len({(name, option) for name, option, _ in cases}) > 60
    results = smx_many(*((name, option, value, *FAILS[name]) for name, option, value in cases), cwd=tmp_path)
    for result, case in zip(results, cases, strict=True):
        assert result.returncode == 2, (case, result.stderr[-2000:])
        refused(result, 2)
    assert list(tmp_path.iterdir()) == []


def test_nan_is_no_number_of_an_option(tmp_path: Path) -> None:
    numbers = [
        (name, option.opts[0])
        for name, command in main.commands.items()
        for option in options(command)
        if is_number(option.type)
    ]
    assert len(numbers) > 30
    for result in smx_many(*((name, option, "nan", *FAILS[name]) for name, option in numbers), cwd=tmp_path):
        refused(result, 2, "Invalid value for '--")


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (MemoryError(), "smx export found too little memory; give it smaller numbers, or more memory (MemoryError)"),
        (
            RuntimeError(
                "[enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to"
                " allocate 9 bytes. Error code 12 (Cannot allocate memory)\nException raised from f at a.cpp:1 (most"
                " recent call first):\nframe #0: c10::Error::Error() + 0x1 (0x2 in libc10.so)\n"
            ),
            "too little memory; give it smaller numbers, or more memory ([enforce fail at alloc_cpu.cpp:117] err == 0."
            " DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes. Error code 12 (Cannot allocate"
            " memory))",
        ),
        (OverflowError("int too big to convert"), "a number is too large for smx export (int too big to convert)"),
        (RuntimeError("Storage size calculation overflowed with sizes=[9]"), "a number is too large for smx export"),
        (RecursionError("maximum recursion depth exceeded"), "what smx export was given is nested too deep (maximum"),
        (SmxError("it failed: x\nException raised from f at a.cpp:1\nframe #0: f"), "it failed: x"),
    ],
)
def test_what_goes_beyond_a_machine_is_one_line(error: Exception, line: str) -> None:
    failure = as_failure(error, "smx export")
    assert failure is not None
    assert failure.exit_code == 1
    assert failure.message.endswith(line) or line in failure.message
    assert "frame #" not in failure.message


def test_a_place_that_is_none(exported: Path, tmp_path: Path) -> None:
    """A current folder that was removed, no HOME, no TMPDIR, no locale, and standard streams that are closed."""
    code = """
import os, sys
os.mkdir("gone")
os.chdir("gone")
os.rmdir("../gone")
from smx.__main__ import main
main()
"""
    if sys.version_info[:3] != (3, 13, 0):  # which has a bug: there `import socket` fails in such a folder
        refused(python("-c", code, "train", cwd=tmp_path), 2, "the current folder does not exist any more; go to")
    bare = {"PYTHONPATH": os.environ.get("PYTHONPATH", ""), "TMPDIR": str(tmp_path / "none"), "LC_ALL": "C"}
    bare |= {"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "LANG": "xx_YY.odd", "COLUMNS": "x"}
    result = python("-m", "smx", "inspect", exported, env=bare)
    assert (result.returncode, result.stderr) == (0, "")
    close = f"exec {sys.executable} -m smx inspect {exported} <&- >&-"
    for line, expected in ((close, 0), (f"{close} 2>&-", 0), (close.replace(str(exported), "none.onnx"), 2)):
        assert subprocess.run(["sh", "-c", line], check=False, capture_output=True).returncode == expected
    for arguments in (("inspect", exported), ("--version",)):
        with Path("/dev/full").open("w") as full:
            command = [sys.executable, "-m", "smx", *map(str, arguments)]
            result = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
        assert (result.returncode, result.stderr) == (1, "Error: No space left on device\n")


def test_a_network_that_no_memory_holds(tmp_path: Path) -> None:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (2**33, 2**33))

    command = ("train", "--hidden", "1048576,1048576", "--device", "cpu", "--out", tmp_path / "run")
    result = python("-m", "smx", *command, preexec_fn=limit)
    refused(result, 1, "smx train found too little memory; give it smaller numbers")
    assert list(tmp_path.iterdir()) == []
