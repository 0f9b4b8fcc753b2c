"""Options that several commands share, and their types."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from functools import reduce
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

from smx import files, limits, paper, timing
from smx.cli.output import STDOUT
from smx.errors import InputError

# Known values, written here because help and completion must load neither torch nor ONNX Runtime.
LAYOUTS = ("scatter", "sorted")
FASTEST = "fastest"
PRECISIONS = ("float32", "float16", "int8")
PROVIDERS = ("cpu", "cuda", "tensorrt", "openvino", "coreml", "directml")
GOALS = ("p50", "p99", "throughput")
DEVICES = ("cpu", "gpu")
PYTORCH = ("eager", "compiled")
EXECUTION_MODES = ("sequential", "parallel")
OPTIMIZATIONS = ("disabled", "basic", "extended", "all")


class OutputPath(click.ParamType[str]):
    """A file that can be written, checked before the work begins; without a suffix `-` is standard output."""

    name = "path"

    def __init__(self, suffix: str = "") -> None:
        self.suffix = suffix

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Check the path."""
        if not value:
            self.fail("the path is empty", param, ctx)
        if self.suffix or value != STDOUT:
            files.check_writable(value)
            if not str(value).endswith(self.suffix):
                raise InputError(f"{value} must end in {self.suffix}")
        return str(value)


class JsonPath(OutputPath):
    """Where JSON goes: to no model, as by `smx bench --json a.onnx b.onnx` of someone who takes --json for a flag."""

    OTHERS = (
        *files.NETWORKS,
        *(".onnx", ".toml", ".csv", ".parquet", ".npy", ".npz"),
        *(".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"),
    )

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Check the path."""
        path = super().convert(value, param, ctx)
        if path.lower().endswith(self.OTHERS):
            raise InputError(f"{path} has the ending of another kind of file; --json needs a path of its own, or -")
        return path


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
            if isinstance(param, click.Option) and (record := param.get_help_record(ctx)):
                groups.setdefault(getattr(param, "group", "Options"), []).append(record)
        for heading, records in sorted(groups.items(), key=lambda group: group[0] == "Options"):
            with formatter.section(heading):
                formatter.write_dl(records)

    def invoke(self, ctx: click.Context) -> Any:
        """Compare the paths, then run."""
        paths = {param: ctx.params[param.name] for param in self.params if param.name and ctx.params.get(param.name)}
        outputs = {param: Path(path) for param, path in paths.items() if isinstance(param.type, OutputPath)}
        inputs = [path for param, value in paths.items() if param not in outputs for path in _paths(value)]
        for param, output in outputs.items():
            others = [other for each, other in outputs.items() if each is not param]
            for path in (*inputs, *others):
                if same(output, path):
                    raise InputError(f"{output} is given twice, and would be written over; choose another path")
        return super().invoke(ctx)


def _paths(value: Any) -> Iterator[Path]:
    """Yield the paths among an option's values; a text is one if it names a file, as in `--price prices.json`."""
    if isinstance(value, tuple | list):
        for each in value:
            yield from _paths(each)
    elif isinstance(value, Path) or (isinstance(value, str) and os.path.isfile(value)):  # noqa: PTH113 - never raises
        yield Path(value)


def same(a: Path, b: Path) -> bool:
    """Whether two paths lead to one file, be it there or not yet."""
    return os.path.realpath(a) == os.path.realpath(b) or (a.exists() and b.exists() and a.samefile(b))


class Number(click.FloatRange):
    """A finite number in a range."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Check the range."""
        number = float(super().convert(value, param, ctx))
        if not math.isfinite(number):
            self.fail(f"{value!r} is no finite number", param, ctx)
        return number


class Commas(click.ParamType[tuple[Any, ...]]):
    """Values of one kind with commas between; none for an empty text, if `empty` allows it."""

    name = "values"

    def __init__(self, kind: click.ParamType[Any] = click.STRING, *, empty: bool = True) -> None:
        self.kind = kind
        self.empty = empty

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:
        """Show the choices, if there are some."""
        return f"{self.kind.get_metavar(param, ctx) or ('NAME' if self.kind is click.STRING else 'N')},..."

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[Any, ...]:
        """Split the text and convert each part."""
        parts = [part.strip() for part in value.split(",") if part.strip() or not self.empty]
        return tuple(self.kind.convert(part, param, ctx) for part in parts)

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Complete the last word."""
        before, comma, last = incomplete.rpartition(",")
        return [CompletionItem(before + comma + item.value) for item in self.kind.shell_complete(ctx, param, last)]


def together(*options: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Make one decorator of several options; help shows them in this order."""
    return lambda command: reduce(lambda made, option: option(made), reversed(options), command)


class InputPath(click.ParamType[Path]):
    """A path. An empty one is a shell variable without a value, and not the folder that Python takes it for."""

    name = "path"

    def __init__(self, *, folder: bool = False) -> None:
        self.folder = folder

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """Return the path."""
        if not str(value):
            self.fail("the path is empty", param, ctx)
        if self.folder and Path(value).exists() and not Path(value).is_dir():
            self.fail(f"{value} is no folder", param, ctx)
        return Path(value)

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Let the shell complete names of files."""
        return [CompletionItem(incomplete, type="dir" if self.folder else "file")]


PATH = InputPath()
FOLDER = InputPath(folder=True)
THREADS = click.IntRange(1, limits.THREADS)
BATCH_SIZE = click.IntRange(1, limits.BATCH)
BATCH_SIZES = Commas(BATCH_SIZE, empty=False)
USUAL_BATCH_SIZES = ",".join(map(str, timing.BATCH_SIZES))
WIDTH = click.IntRange(1, limits.NEURONS)
WIDTHS = Commas(WIDTH, empty=False)
ROUNDS = click.IntRange(1, limits.ROUNDS)

json = click.option(
    "--json",
    "json_path",
    type=JsonPath(),
    metavar="PATH",
    help="Write the result as JSON to PATH, or to standard output for '-'.",
)
data_dir = click.option(
    "--data-dir",
    type=FOLDER,
    envvar="SMX_DATA_DIR",
    show_envvar=True,
    metavar="DIR",
    help="Where mnist, fashion-mnist and cifar10 lie, or are downloaded to.  [default: ~/.cache/smartmixed]",
)
trust_code = click.option(
    "--trust-code", is_flag=True, help="Import and run a network's code (module:factory) that a file names."
)
session = together(
    click.option("--provider", type=click.Choice(PROVIDERS), default="cpu", help="What ONNX Runtime runs on."),
    click.option("--allow-fallback", is_flag=True, help="Run operators that the provider can't run on the CPU."),
)
baselines = click.option(
    "--baselines",
    type=Commas(),
    help=f"Activations of the networks with one fixed activation.  [default: {','.join(paper.PAPER_POOL)}]",
)
bench = together(
    click.option(
        "--reference",
        metavar="NAME",
        help="The candidate that ratios refer to.  [default: relu, or else the first baseline, or candidate]",
    ),
    click.option(
        "--rounds",
        type=ROUNDS,
        default=60,
        metavar="N",
        help="At least this many rounds, in each of which every candidate runs a short burst.",
    ),
    click.option(
        "--limit",
        "limits",
        multiple=True,
        metavar="A/B<=X[@BATCH]",
        help="End with exit code 3 if A's time is surely above X times B's.",
    ),
    json,
    click.option("--plot", type=OutputPath(".png"), metavar="PATH.png", help="Draw the distributions."),
)
