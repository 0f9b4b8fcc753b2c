"""Options that several commands share, and how results leave a command."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem
from rich.console import Console
from rich.progress import Progress

from smx import files, paper
from smx.errors import InputError

STDOUT = "-"
PLAIN: dict[str, Any] = {"highlight": False, "markup": False, "emoji": False}  # names and paths are users' own

# Known values, written here because help and completion must load neither torch nor ONNX Runtime.
LAYOUTS = ("scatter", "sorted")
PRECISIONS = ("float32", "float16", "int8")
PROVIDERS = ("cpu", "cuda", "tensorrt", "openvino", "coreml", "directml")
GOALS = ("p50", "p99", "throughput")
PYTORCH = ("eager", "compiled")
EXECUTION_MODES = ("sequential", "parallel")
OPTIMIZATIONS = ("disabled", "basic", "extended", "all")


class OutputPath(click.ParamType[str]):
    """A file that can be written, checked before the work begins; `-` is standard output if it is allowed."""

    name = "path"

    def __init__(self, suffix: str = "", *, allow_stdout: bool = False) -> None:
        self.suffix = suffix
        self.allow_stdout = allow_stdout

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Check the path."""
        if not (self.allow_stdout and value == STDOUT):
            files.check_writable(value)
            if not str(value).endswith(self.suffix):
                raise InputError(f"{value} must end in {self.suffix}")
        return str(value)


class Option(click.Option):
    """An option that `--help` shows under the heading `group`."""

    def __init__(self, *args: Any, group: str = "Options", **attributes: Any) -> None:
        super().__init__(*args, **attributes)
        self.group = group


class Command(click.Command):
    """A command that never writes over a file it was given to read, nor twice to the same one."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options in groups; those without one come last, under "Options"."""
        groups: dict[str, list[tuple[str, str]]] = {}
        for param in self.get_params(ctx):
            if record := param.get_help_record(ctx):
                groups.setdefault(getattr(param, "group", "Options"), []).append(record)
        for heading, records in sorted(groups.items(), key=lambda group: group[0] == "Options"):
            with formatter.section(heading):
                formatter.write_dl(records)

    def invoke(self, ctx: click.Context) -> Any:
        """Compare the paths, then run."""
        paths = {param: ctx.params[param.name] for param in self.params if param.name and ctx.params.get(param.name)}
        outputs = {param: Path(path) for param, path in paths.items() if isinstance(param.type, OutputPath)}
        inputs = [path for value in paths.values() for path in (value if isinstance(value, tuple) else (value,))]
        for param, output in outputs.items():
            others = [other for each, other in outputs.items() if each is not param]
            for path in (*inputs, *others):
                if isinstance(path, Path) and _same(output, path):
                    raise InputError(f"{output} is given twice, and would be written over; choose another path")
        return super().invoke(ctx)


def _same(a: Path, b: Path) -> bool:
    return a.absolute() == b.absolute() or (a.exists() and b.exists() and a.samefile(b))


def _number(ctx: click.Context, param: click.Parameter, value: float | None) -> float | None:
    if value is not None and math.isnan(value):
        raise click.BadParameter("expected a number, got nan")
    return value


class Numbers(click.ParamType[tuple[int, ...]]):
    """Positive whole numbers with commas between."""

    name = "n,n,..."

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:
        """Split and check."""
        if isinstance(value, tuple):
            return value
        try:
            numbers = tuple(int(part) for part in str(value).split(","))
        except ValueError:
            self.fail(f"expected whole numbers with commas between, got {value!r}", param, ctx)
        if min(numbers) < 1:
            self.fail(f"expected numbers of at least 1, got {value!r}", param, ctx)
        return numbers


class Names(click.ParamType[tuple[str, ...]]):
    """Words with commas between; none for an empty value. With `known` no others."""

    name = "name,..."

    def __init__(self, known: tuple[str, ...] = ()) -> None:
        self.known = known

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str | None:
        """Show the known words."""
        return f"[{'|'.join(self.known)}],..." if self.known else None

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, ...]:
        """Split and check."""
        if isinstance(value, tuple):
            return value
        names = tuple(dict.fromkeys(name.strip() for name in str(value).split(",") if name.strip()))
        if unknown := [name for name in names if self.known and name not in self.known]:
            self.fail(f"expected {', '.join(self.known)}, with commas between, got {unknown[0]!r}", param, ctx)
        return names

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Complete the last word."""
        before, comma, last = incomplete.rpartition(",")
        return [CompletionItem(before + comma + name) for name in self.known if name.startswith(last)]


class Aliased(click.Option):
    """An option that help shows by its first name; its further names are older spellings, which still work."""

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        """Describe it."""
        shown = copy.copy(self)
        shown.opts = self.opts[:1]
        return click.Option.get_help_record(shown, ctx)


json_option = click.option(
    "--json",
    "json_path",
    type=OutputPath(allow_stdout=True),
    metavar="PATH",
    help="Write the result as JSON to PATH, or to standard output for '-'.",
)
data_dir_option = click.option(
    "--data-dir",
    type=click.Path(path_type=Path, file_okay=False),
    envvar="SMX_DATA_DIR",
    show_envvar=True,
    metavar="DIR",
    help="Where mnist, fashion-mnist and cifar10 lie, or are downloaded to.  [default: ~/.cache/smartmixed]",
)
trust_code_option = click.option(
    "--trust-code", is_flag=True, help="Import and run the network's code (module:factory) that MODEL.pt names."
)
provider_option = click.option(
    "--provider", type=click.Choice(PROVIDERS), default="cpu", show_default=True, help="What ONNX Runtime runs on."
)
baselines_option = click.option(
    "--baselines",
    type=Names(),
    default=",".join(paper.PAPER_POOL),
    show_default=True,
    help="Activations of the networks with one fixed activation.",
)
reference_option = click.option(
    "--reference", metavar="NAME", help="The candidate that ratios refer to.  [default: relu, or else the first one]"
)
limit_option = click.option(
    "--limit",
    "limits",
    multiple=True,
    metavar="A/B<=X[@BATCH]",
    help="End with exit code 3 if A's time is surely above X times B's.",
)
plot_option = click.option("--plot", type=OutputPath(".png"), metavar="PATH.png", help="Draw the distributions.")
rounds_option = click.option(
    "--rounds",
    type=click.IntRange(min=1),
    default=60,
    show_default=True,
    metavar="N",
    help="At least this many rounds, in each of which every candidate runs a short burst.",
)
fallback_option = click.option(
    "--allow-fallback", is_flag=True, help="Run operators that the provider can't run on the CPU."
)


def tolerance_option(name: str, help: str) -> Callable[[Any], Any]:
    """Make an option for a tolerance: a number that is not negative; None when it is not given."""
    return click.option(name, type=click.FloatRange(min=0), callback=_number, metavar="X", help=help)


def console(json_path: str | None) -> Console:
    """Return where people read: standard output, unless JSON goes there."""
    stderr = json_path == STDOUT
    people = Console(stderr=stderr, **PLAIN)
    return people if people.is_terminal else Console(stderr=stderr, width=140, **PLAIN)


def logs() -> Console:
    """Return where progress and notes go: standard error."""
    return Console(stderr=True, **PLAIN)


@contextmanager
def progress() -> Iterator[Callable[[str, int, int], None]]:
    """Yield what shows progress on a terminal: called with what is being done, how much of it is done, and of all."""
    notes = logs()
    with Progress(console=notes, disable=not notes.is_terminal, transient=True) as bar:
        task = bar.add_task("", total=None)
        yield lambda what, done, total: bar.update(task, description=what, completed=done, total=total or None)


def write_json(json_path: str | None, content: Any) -> None:
    """Write JSON to a file, to standard output for `-`, or nowhere for None; numbers not finite become null."""
    if json_path is None:
        return
    text = json.dumps(_finite(content), indent=2, ensure_ascii=False, allow_nan=False)
    if json_path == STDOUT:
        click.echo(text)
    else:
        files.write_text(json_path, text + "\n")


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: _finite(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(entry) for entry in value]
    return value
