"""How every command ends: a result, or one line and an exit code."""

from __future__ import annotations

import errno
import getpass
import os
import re
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from textwrap import shorten
from typing import Any

import click

from smx.cli.output import UntilClosed, plain
from smx.ending import eventually, line
from smx.errors import InputError, SmxError, one_line

EXTRAS = dict.fromkeys(("torch", "torchvision", "onnx", "onnx_ir", "onnxscript", "sklearn", "matplotlib"), "train")
EXTRAS["tensorboard"] = "tensorboard"
EXTRAS |= dict.fromkeys(("starlette", "uvicorn", "uvloop", "httptools", "orjson", "grpc", "prometheus_client"), "serve")
EXTRAS |= {"ray": "ray"} | dict.fromkeys(("pandas", "pyarrow", "jinja2", "markupsafe", "scipy"), "study")
EXTRAS |= dict.fromkeys(("tritonclient", "yaml"), "deploy")
"""Which extra brings a package that the base install does not have."""

MEMORY = re.compile(r"out of memory|allocate memory|not enough memory|bad.?alloc|map segment", re.IGNORECASE)
"""Of the errors of PyTorch, ONNX Runtime and the system's loader, which are of no class of their own."""
INTERRUPTED = 130


class Failure(click.ClickException):
    """Ends a command with `Error: message` on one line of standard error, and an exit code."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(plain(one_line(message)))
        self.exit_code = exit_code  # type: ignore[misc]


def as_failure(error: Exception, command: str) -> Failure | None:
    """Return how a command ends with an error that a user can meet, or None for any other."""
    if isinstance(error, SmxError):
        return Failure(str(error), error.exit_code)
    if isinstance(error, ModuleNotFoundError):
        package = (error.name or "").partition(".")[0]
        if package not in EXTRAS:
            return None
        how = f"pip install 'smartmixed[{EXTRAS[package]}]'"
        return Failure(f"{command} needs {package}, which is not installed; run: {how}", 1)
    text = shorten(one_line(error), 300)
    if isinstance(error, MemoryError) or MEMORY.search(text):
        return Failure(f"{command} found too little memory; give it smaller numbers, or more memory ({text})", 1)
    if isinstance(error, OverflowError) or "overflow" in text:
        return Failure(f"a number is too large for {command} ({text})", 1)
    if isinstance(error, RecursionError):
        return Failure(f"what {command} was given is nested too deep ({text})", 1)
    if "InvalidCxxCompiler" in text:  # of torch.compile; known by its text, as no command loads torch for this
        return Failure("torch.compile found no C++ compiler; install g++, or leave out the option that compiles", 1)
    if isinstance(error, OSError) and not isinstance(error, BrokenPipeError):  # that one is click's own business
        where = f"{error.filename}: " if error.filename else ""
        return Failure(f"{where}{error.strerror or error}", 2 if error.errno == errno.ENAMETOOLONG else 1)
    return None


@contextmanager
def until_closed() -> Iterator[None]:
    """Let a command end as it would, although the readers of its output have gone."""
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = UntilClosed(sys.stdout), UntilClosed(sys.stderr, messages=True)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before


class Group(click.Group):
    """A group whose commands never end in a traceback for what a user can meet."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the commands in the order in which they were given."""
        return list(self.commands)

    def main(self, *args: Any, **options: Any) -> Any:
        """Run the command line; its output may be closed at any time."""
        with until_closed():
            try:
                return super().main(*args, **options)
            except OSError as error:  # of --help and --version, which no command sees
                Failure(error.strerror or str(error), 1).show()
                sys.exit(1)
            except (KeyError, ValueError):
                if "_SMX_COMPLETE" not in os.environ:
                    raise
                how = "which set COMP_WORDS, too, and COMP_CWORD; see smx completion"
                Failure(f"_SMX_COMPLETE is for shells, {how}", 2).show()
                sys.exit(2)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; turn errors into one line and the exit code that they carry."""
        try:
            require_folder()
            with eventually(remove_torchs_folder):
                result = super().invoke(ctx)
                sys.stdout.flush()
                return result
        except Exception as error:
            failure = as_failure(error, f"smx {ctx.invoked_subcommand}")
            if failure is None:
                raise
            raise failure from error
        except KeyboardInterrupt:  # where no signal is waited for, see smx.ending: on Windows, and in Python
            click.echo(line(signal.SIGINT), err=True)
            raise click.exceptions.Exit(INTERRUPTED) from None


def require_folder() -> None:
    """Refuse to work in a folder that was removed, where libraries abort the process."""
    try:
        Path.cwd()
    except OSError as error:
        raise InputError("the current folder does not exist any more; go to another one") from error


def remove_torchs_folder() -> None:
    """Remove the folder for compiled code that loading PyTorch makes in TMPDIR, unless it holds something."""
    with suppress(OSError, KeyError):  # KeyError: the user has no name
        Path(tempfile.gettempdir(), f"torchinductor_{getpass.getuser()}").rmdir()
