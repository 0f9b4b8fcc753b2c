"""`smx bench`: a network beside the same network with one activation, or files beside each other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from smx.cli.options import (
    EXECUTION_MODES,
    LAYOUTS,
    OPTIMIZATIONS,
    PYTORCH,
    Command,
    Names,
    Numbers,
    baselines_option,
    console,
    fallback_option,
    json_option,
    limit_option,
    plot_option,
    progress,
    provider_option,
    reference_option,
    rounds_option,
    trust_code_option,
    write_json,
)


@click.command(cls=Command)
@click.argument("paths", metavar="MODEL.pt|MODEL.onnx...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--layouts",
    type=Names(LAYOUTS),
    default=",".join(LAYOUTS),
    show_default=True,
    help="Layouts in which MODEL.pt is exported.",
)
@baselines_option
@click.option("--pytorch", type=Names(PYTORCH), default="", help="Run MODEL.pt in PyTorch, too.")
@reference_option
@click.option("--batch-sizes", type=Numbers(), default="1,16,128,1024", show_default=True, help="Examples a run.")
@rounds_option
@click.option(
    "--threads", type=click.IntRange(min=1), default=1, show_default=True, metavar="N", help="Threads for one operator."
)
@click.option("--spinning/--no-spinning", default=True, show_default=True, help="Let idle threads wait actively.")
@click.option(
    "--execution-mode",
    type=click.Choice(EXECUTION_MODES),
    default="sequential",
    show_default=True,
    help="Run independent operators one after the other, or at the same time.",
)
@click.option(
    "--optimization",
    type=click.Choice(OPTIMIZATIONS),
    default="all",
    show_default=True,
    help="How far ONNX Runtime optimises the graph.",
)
@click.option(
    "--io-binding/--no-io-binding",
    default=None,
    help="Keep tensors on the provider's device.  [default: if it has memory of its own]",
)
@provider_option
@fallback_option
@click.option("--profile", is_flag=True, help="Tell where the time goes, by layer and operator.")
@limit_option
@click.option(
    "--compare", type=click.Path(path_type=Path), metavar="OLD.json", help="Tell what changed since an earlier bench."
)
@trust_code_option
@json_option
@plot_option
def bench(
    paths: tuple[Path, ...],
    threads: int,
    spinning: bool,
    execution_mode: str,
    optimization: str,
    compare: Path | None,
    json_path: str | None,
    plot: str | None,
    **options: Any,
) -> None:
    """Measure latency, beside the same network with one activation.

    All candidates are timed in turn, in a process without torch; the ratio to the reference within a round is what to
    quote, with its 99 % confidence interval. ONNX files are candidates as they are, under their names; a MODEL.pt is
    exported in each layout and with each baseline.

    \b
    smx bench runs/mnist/model.pt --json bench.json --plot bench.png
    smx bench before.onnx after.onnx --limit "after/before<=1.02"
    """
    from smx.cli.bench_tables import show_changes, show_latency, show_limits
    from smx.cli.profile_tables import show_profile
    from smx.runtime.settings import Settings
    from smx.workflows.bench import bench

    if plot:
        from smx.figures.latency import draw_latency
    settings = Settings(threads=threads, spinning=spinning, execution_mode=execution_mode, optimization=optimization)
    with progress() as show:
        report = bench(paths, settings=settings, compare=compare, on_progress=show, **options)
    write_json(json_path, report.to_dict())
    if plot:
        draw_latency(report, Path(plot))
    people = console(json_path)
    show_latency(report, people)
    for name, tables in report.profiles.items():
        for table in tables:
            show_profile(name, table, json_path)
    show_limits(report.limits, people)
    if report.changes:
        show_changes(report.changes, str(compare), people)
    if not report.passed:
        raise click.exceptions.Exit(3)
