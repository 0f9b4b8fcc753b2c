"""`smx tune`: the threads and the layout that run a model fastest here. Runs on the base install, but for --model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from smx import limits
from smx.cli import options
from smx.cli.options import same
from smx.cli.output import logs, table, write_json
from smx.cli.progress import progress
from smx.errors import InputError

if TYPE_CHECKING:
    from smx.runtime.tune.search import TuningReport

SHOWN = 6
"""At most this many candidates are shown; the JSON has all."""


@click.command(cls=options.Command)
@click.argument("path", metavar="MODEL.onnx|MODEL.pt", type=options.PATH)
@click.option(
    "--model",
    type=options.PATH,
    metavar="MODEL.pt",
    help="Try the other layout, too: what MODEL.onnx was exported from.",
)
@click.option(
    "--batch-size",
    type=options.BATCH_SIZE,
    metavar="N",
    help="Examples a run.  [default: what the file is made for, or 1]",
)
@click.option(
    "--goal", type=click.Choice(options.GOALS), default="p50", help="Percentile of the time of a run, or throughput."
)
@options.session
@click.option(
    "--rounds",
    type=click.IntRange(20, limits.ROUNDS),
    default=60,
    metavar="N",
    help="At least this many rounds, of the search and of the last measurement against the defaults.",
)
@click.option(
    "--max-threads",
    type=options.THREADS,
    metavar="N",
    help="At most this many threads.  [default: the number of cores]",
)
@options.trust_code
@options.json
def tune(path: Path, json_path: str | None, **options: Any) -> None:
    """Find the fastest settings for a model on this machine.

    The number of threads is searched, and with --model the layout. The fastest is measured against ONNX Runtime's
    defaults once more. If it is certainly faster, it is written to MODEL.onnx.tune.json, which predict and
    smx.runtime.Session read, and a faster layout to MODEL.tuned.onnx beside it; if not, the file says that the defaults
    stay. The runs of a measurement follow each other without a pause. For a MODEL.pt the fastest form of each layer is
    searched first, as by smx export --layout fastest, and written to MODEL.tuned.onnx.

    \b
    smx tune runs/mnist/model.pt --batch-size 16
    smx tune mnist.onnx --model runs/mnist/model.pt --batch-size 16 --goal p99
    """
    from smx.workflows.tune import tune, written_by_tune

    written = written_by_tune(path)
    if json_path is not None and any(same(Path(json_path), path) for path in written):
        raise InputError(f"{json_path} is what smx tune writes itself; choose another path for --json")
    with progress() as show:
        report = tune(path, on_progress=show, **options)
    people = write_json(json_path, {"model": str(path), **report.to_dict()})
    rows = ((one.name, f"{one.ratio:.3f}", f"{one.low:.3f} - {one.high:.3f}") for one in report.measured[:SHOWN])
    title = f"{path}, {report.provider}, batch {report.batch_size}, goal {report.goal}"
    caption = "ratio to the defaults in the search; the best one is measured again"
    people.print(table(("configuration", ">ratio", ">interval"), rows, title=title, caption=caption))
    people.print(f"{_sentence(report)}; written to {written[0]}", soft_wrap=True)
    for warning in report.warnings:
        logs().print(f"Warning: {warning}", soft_wrap=True)


def _sentence(report: TuningReport) -> str:
    statistic = "mean time" if report.goal == "throughput" else report.goal
    unit = "examples a second" if report.goal == "throughput" else "microseconds"
    figures = f"{report.best_figure:,.1f} instead of {report.default_figure:,.1f} {unit}"
    interval = f"{report.ratio:.3f} ({report.low:.3f} to {report.high:.3f}, {report.level:.0%} interval)"
    measured = f"{report.best.describe()} takes {interval} of their {statistic} ({figures})"
    if report.kept_default:
        return f"The defaults stay, nothing was certainly faster: {measured}"
    return f"Faster than the defaults: {measured}"
