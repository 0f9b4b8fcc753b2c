"""`smx sweep`: many training runs, compared."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.progress import BarColumn, MofNCompleteColumn, Progress

from smx import limits
from smx.cli import options
from smx.cli.options import same
from smx.cli.output import logs, table, write_json
from smx.cli.progress import label, progress
from smx.ending import say_how_to_go_on
from smx.errors import InputError, SmxError

if TYPE_CHECKING:
    from smx.study.grid import Cell
    from smx.study.runner import Outcome
    from smx.workflows.sweep import SweepReport

LISTED = 20
"""Failed cells, and cells of a plan, that are shown."""


class Seeds(click.ParamType[list[int]]):
    """Seeds such as `0-4` or `0,2,5-7`."""

    name = "seeds"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> list[int]:
        """Read the ranges."""
        if isinstance(value, list):
            return value
        found: list[int] = []
        for part in value.split(","):
            match = re.fullmatch(r"\s*(\d{1,9})(?:-(\d{1,9}))?\s*", part, re.ASCII)
            first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
            if not 0 <= last - first < 10_000:
                self.fail(f"{value!r} is no list of seeds; expected for example 0-4 or 0,2,5-7", param, ctx)
            found += range(first, last + 1)
        return found


class Pair(click.ParamType[tuple[str, str]]):
    """`name=value`."""

    name = "name=value"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, str]:
        """Divide at the first `=`."""
        if isinstance(value, tuple):
            return value
        name, equals, text = value.partition("=")
        if not equals or not name:
            self.fail(f"{value!r} must be a setting and its value, for example lr=1e-3", param, ctx)
        return name.strip().replace("-", "_"), text.strip()


@click.command(cls=options.Command)
@click.option(
    "--config",
    "grid",
    metavar="GRID.toml",
    help="The grid: a TOML file, or the name of one that comes with smx: paper, short, digits, controls, ...",
)
@click.option("--out", type=options.PATH, metavar="DIR", required=True, help="The sweep's folder; grids add up in it.")
@click.option(
    "--jobs",
    type=click.IntRange(1, limits.JOBS),
    default=1,
    metavar="N",
    help="Cells side by side; they divide the cores.",
)
@click.option("--ray", metavar="ADDRESS|local", help="Train the cells as tasks of a Ray cluster.")
@click.option("--seeds", type=Seeds(), metavar="0-4", help="Seeds, instead of the grid's.")
@click.option("--set", "settings", type=Pair(), multiple=True, metavar="NAME=VALUE", help="A setting for every cell.")
@click.option(
    "--only", type=Pair(), multiple=True, metavar="NAME=VALUE", help="Only cells with this setting, or method."
)
@click.option("--known", type=options.PATH, metavar="TABLE", help="Take the finished cells of a table as done.")
@click.option("--retry", is_flag=True, help="Train cells again that have failed.")
@click.option("--dry-run", is_flag=True, help="Show the cells, and train none.")
@click.option("--status", "show_status", is_flag=True, help="Show what is done, and train none.")
@click.option(
    "--collect",
    type=options.OutputPath(),
    metavar="TABLE",
    help="Write all results as .csv or .parquet; alone: only that.",
)
@click.option("--latency", is_flag=True, help="Also export each finished network, and time it beside ReLU.")
@click.option("--report/--no-report", "write_page", default=True, help="At the end write DIR/report.html.")
@options.data_dir
@options.trust_code
@options.json
def sweep(
    grid: str | None,
    out: Path,
    settings: Sequence[tuple[str, str]],
    dry_run: bool,
    show_status: bool,
    collect: str | None,
    latency: bool,
    write_page: bool,
    json_path: str | None,
    **options: Any,
) -> None:
    """Train every combination of a grid's settings, each once.

    DIR/cells holds a folder for each cell, named by a hash of its configuration. Stop the sweep whenever you like:
    started again, it goes on. At its end it leaves DIR/report.html, as smx report does. Without --config the cells of
    earlier sweeps in DIR are meant.

    \b
    smx sweep --config digits --out runs/digits --jobs 2
    smx sweep --config short --seeds 0-4 --out runs/mnist --jobs 2 --collect mnist.parquet
    smx sweep --out runs/mnist --status
    """
    from smx.study import table as tables
    from smx.study.listing import belongs_to
    from smx.workflows import sweep as work
    from smx.workflows.report import PAGE
    from smx.workflows.report import report as make_page

    if collect is not None:
        tables.check_format(Path(collect))
    for path in map(Path, filter(None, (collect, json_path))):
        if belongs_to(path, out) or same(path, out / PAGE):
            raise InputError(f"{path} is a file of the sweep itself; choose another path")
    chosen = {"seeds": options.pop("seeds"), "settings": dict(settings), "only": options.pop("only")}
    if grid is None and (chosen["seeds"] or settings or dry_run):
        raise InputError("--seeds, --set and --dry-run need a grid; give it with --config")
    jobs = options["jobs"] if options["jobs"] > 1 else None
    training = {"--jobs": jobs, "--retry": options["retry"], "--known": options["known"], "--ray": options["ray"]}
    _refuse_both(
        "--dry-run", dry_run, {"--status": show_status, "--latency": latency, "--collect": collect, **training}
    )
    _refuse_both("--status", show_status, {"--latency": latency, **training})
    if options["ray"] not in (None, "local") and options["jobs"] > 1:
        raise InputError("--jobs is of this machine or of --ray local; a cluster has as many as it has cores")
    if dry_run:
        _show_plan(work.plan(str(grid), **chosen), json_path)
        return
    asked = grid is not None or any(training.values()) or not (collect or latency)
    trained, left = asked and not show_status, 0
    if not trained:
        report = work.status(out, grid, **chosen)
    else:
        say_how_to_go_on(lambda: "the same command goes on from the last checkpoints")
        with _progress() as (on_plan, on_start, on_end):
            report = work.sweep(grid, out=out, on_plan=on_plan, on_start=on_start, on_end=on_end, **chosen, **options)
        left = report.counts["missing"]  # as where a full disk let no error be kept
    if latency:
        with progress() as show:
            report = work.measure(out, grid, trust_code=options["trust_code"], on_progress=show, **chosen)
    if collect is not None:
        tables.write(tables.collect(out), Path(collect))
    page = make_page(out).out if write_page and trained and report.counts["done"] else None
    _show(report, page, json_path)
    if trained and (report.failed or left):
        raise SmxError(f"{len(report.failed) + left} of {sum(report.counts.values())} cells have no result")
    if report.unmeasured:
        cell, error = next(iter(report.unmeasured.items()))
        raise SmxError(f"{len(report.unmeasured)} finished cells have no latency; {cell}: {error}")


def _refuse_both(option: str, given: bool, others: Mapping[str, object]) -> None:
    """Refuse an option that shows something and changes nothing together with others that would."""
    if given and (also := [name for name, value in others.items() if value]):
        raise InputError(f"{option} shows, and does nothing else; leave out {' and '.join(also)}, or give it alone")


def _show_plan(cells: Sequence[Cell], json_path: str | None) -> None:
    people = write_json(json_path, {"cells": [{"cell": cell.id, **cell.settings} for cell in cells]})
    for cell in cells[:LISTED]:
        people.print(f"{cell.id}  {cell}", soft_wrap=True)
    more = f", of which {LISTED} are shown" if len(cells) > LISTED else ""
    people.print(f"{len(cells)} cells{more}")


def _show(report: SweepReport, page: Path | None, json_path: str | None) -> None:
    people = write_json(json_path, report.to_dict())
    frame = report.frame
    if "test_accuracy" in frame:
        done = frame[frame["status"] == "done"]
        groups = done.groupby("method", sort=False)["test_accuracy"]
        rows = [(str(name), str(len(values)), f"{values.mean():.4f}") for name, values in groups]
        people.print(table(("method", ">cells", ">mean test accuracy"), rows))
    counts = report.counts
    people.print(
        f"{counts['done']} done, {counts['failed']} failed, {counts['missing']} missing; {page or report.out}",
        soft_wrap=True,
    )
    for number, (cell, error) in enumerate(report.failed.items()):
        if number == LISTED:
            people.print("...")
            break
        people.print(f"failed: {cell}  {' '.join(error.split())[:200]}", soft_wrap=True)
    if report.failed:
        people.print("Failed cells are trained again with --retry.")


@contextmanager
def _progress() -> Iterator[tuple[Callable[..., None], Callable[..., None], Callable[..., None]]]:
    """Yield what `sweep` calls: a bar on a terminal, elsewhere a line for each finished cell."""
    console = logs()
    columns = (label("{task.description}"), BarColumn(bar_width=16), MofNCompleteColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("sweep", total=None)
        running: dict[str, str] = {}
        counts = {"all": 0, "before": 0, "done": 0, "failed": 0}
        begun = time.monotonic()

        def on_plan(cells: Sequence[Cell], done: int) -> None:
            counts.update(all=len(cells), before=done)
            bar.update(task, total=len(cells), completed=done)
            console.print(f"{len(cells)} cells, {done} done or failed before")

        def on_start(cell: Cell) -> None:
            running[cell.id] = str(cell)
            bar.update(task, description=_state(counts, running, begun))

        def on_end(cell: Cell, outcome: Outcome) -> None:
            running.pop(cell.id, None)
            result, error = outcome
            counts["failed" if result is None else "done"] += 1
            bar.update(task, advance=1, description=_state(counts, running, begun))
            said = f"failed: {error}" if result is None else f"accuracy {result['test_accuracy']:.4f}"
            if not console.is_terminal or result is None:
                position = counts["before"] + counts["done"] + counts["failed"]
                left = _left(counts, begun)
                console.print(f"{position}/{counts['all']}  {cell.id}  {cell}  {said}{left}", soft_wrap=True)

        yield on_plan, on_start, on_end


def _state(counts: dict[str, int], running: dict[str, str], begun: float) -> str:
    return f"{len(running)} running, {counts['failed']} failed{_left(counts, begun)}"


def _left(counts: dict[str, int], begun: float) -> str:
    """Return how long the rest takes, if each cell takes as long as the mean of those that this sweep has ended."""
    ended = counts["done"] + counts["failed"]
    rest = counts["all"] - counts["before"] - ended
    if not ended or not rest:
        return ""
    seconds = int((time.monotonic() - begun) / ended * rest)
    return f"  {seconds // 3600}:{seconds // 60 % 60:02}:{seconds % 60:02} left"
