"""`smx bench`: a network beside the same network with one activation, or files beside each other."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import click

from smx.cli import options
from smx.cli.bench_tables import show_changes, show_latency, show_limits
from smx.cli.output import write_json
from smx.cli.progress import progress


@click.command(cls=options.Command)
@click.argument("paths", metavar="MODEL.pt|MODEL.onnx...", nargs=-1, required=True, type=options.PATH)
@click.option(
    "--layouts",
    type=options.Commas(click.Choice((*options.LAYOUTS, options.FASTEST))),
    help="Layouts in which MODEL.pt is exported; fastest is searched for a minute."
    f"  [default: {','.join(options.LAYOUTS)}]",
)
@options.baselines
@click.option(
    "--pytorch",
    type=options.Commas(click.Choice(options.PYTORCH)),
    default="",
    show_default=False,
    help="Run MODEL.pt in PyTorch, too.",
)
@click.option("--batch-sizes", type=options.BATCH_SIZES, default=options.USUAL_BATCH_SIZES, help="Examples a run.")
@click.option("--threads", type=options.THREADS, default=1, metavar="N", help="Threads for one operator.")
@click.option("--spinning/--no-spinning", default=True, help="Let idle threads wait actively.")
@click.option(
    "--execution-mode",
    type=click.Choice(options.EXECUTION_MODES),
    default="sequential",
    help="Run independent operators one after the other, or at the same time.",
)
@click.option(
    "--optimization",
    type=click.Choice(options.OPTIMIZATIONS),
    default="all",
    help="How far ONNX Runtime optimises the graph.",
)
@click.option(
    "--io-binding/--no-io-binding",
    default=None,
    help="Keep tensors on the provider's device.  [default: if it has memory of its own]",
)
@options.session
@click.option("--profile", is_flag=True, help="Tell where the time goes, by layer and operator.")
@click.option("--compare", type=options.PATH, metavar="OLD.json", help="Tell what changed since an earlier bench.")
@options.trust_code
@options.bench
def bench(paths: tuple[Path, ...], json_path: str | None, plot: str | None, **options: Any) -> None:
    """Measure latency, beside the same network with one activation.

    All candidates are timed in turn, in a process without torch; the ratio to the reference within a round is what to
    quote, with its 99 % confidence interval. ONNX files are candidates as they are, under their names; a MODEL.pt is
    exported in each layout and with each baseline.

    \b
    smx bench runs/mnist/model.pt --json bench.json --plot bench.png
    smx bench before.onnx after.onnx --limit "after/before<=1.02"
    """
    from smx.runtime.settings import Settings
    from smx.workflows.bench import bench

    if plot:
        from smx.figures.latency import draw_latency
    settings = Settings(**{field.name: options.pop(field.name) for field in fields(Settings)})
    with progress() as show:
        report = bench(paths, settings=settings, on_progress=show, **options)
    people = write_json(json_path, report.to_dict())
    show_latency(report, people)
    if plot:
        draw_latency(report, Path(plot))
    show_limits(report.limits, people)
    if report.changes:
        show_changes(report.changes, options["compare"], people)
    if not report.passed:
        raise click.exceptions.Exit(3)
