"""`smx bench-train`: what a training step of both phases costs, beside plain networks and the plain formulas."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from smx import limits, paper
from smx.cli import options
from smx.cli.bench_tables import show_limits, show_steps
from smx.cli.output import write_json
from smx.cli.progress import progress

INPUTS, *HIDDEN, CLASSES = paper.LARGEST


@click.command(cls=options.Command)
@click.option(
    "--hidden",
    type=options.WIDTHS,
    default=",".join(map(str, HIDDEN)),
    help="Neurons of each hidden layer; the default is the paper's largest network.",
)
@click.option("--inputs", type=options.WIDTH, default=INPUTS, metavar="N", help="Number of features.")
@click.option(
    "--classes", type=click.IntRange(2, limits.NEURONS), default=CLASSES, metavar="N", help="Number of classes."
)
@click.option(
    "--pool",
    type=options.Commas(),
    default=",".join(paper.PAPER_POOL),
    help="The activations that neurons choose from.",
)
@options.baselines
@click.option(
    "--selection",
    type=options.Commas(click.Choice((*paper.SELECTIONS, paper.RECOMMENDED))),
    default=paper.PAPER,
    help="Rules by which neurons choose in phase 1; the paper's is measured in any case.",
)
@click.option("--plain/--no-plain", default=True, help="Measure the plain formulas, too.")
@click.option("--batch-sizes", type=options.BATCH_SIZES, default="128,1024", help="Examples a step.")
@click.option("--device", type=click.Choice(("cpu", "cuda")), default="cpu", help="To train on.")
@click.option("--threads", type=options.THREADS, default=2, metavar="N", help="Threads of the CPU.")
@click.option(
    "--compile", "compiled", is_flag=True, help="Measure the reference and both phases by torch.compile, too."
)
@click.option("--cuda-graphs", is_flag=True, help="Capture a step as a CUDA graph, and time its replay.")
@click.option(
    "--seed", type=click.IntRange(0, 2**32 - 1), default=0, metavar="SEED", help="Seed of weights, choices and batches."
)
@options.bench
def bench_train(
    hidden: tuple[int, ...], inputs: int, classes: int, json_path: str | None, plot: str | None, **options: Any
) -> None:
    """Measure steps of training: their time and their memory.

    A step is what smx train does with a batch: forward, backward, clipping, Adam. All candidates take steps in turn;
    the ratio to the reference within a round is what to quote, with its 99 % confidence interval. "plain" are the
    paper's formulas as they are written; in "phase 2" smx.sort has sorted the neurons by what they chose.

    \b
    smx bench-train --selection recommended
    smx bench-train --compile --json steps.json --plot steps.png
    smx bench-train --device cuda --cuda-graphs --batch-sizes 128,8192
    smx bench-train --no-plain --limit "phase 1/relu<=1.45@128"
    """
    # PyTorch's profiler, which counts memory, prints to standard error unless it is told not to before torch is loaded.
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")
    from smx.workflows.bench_train import bench_train

    if plot:
        from smx.figures.latency import draw_latency
    with progress() as show:
        report = bench_train((inputs, *hidden, classes), on_progress=show, **options)
    people = write_json(json_path, report.to_dict())
    if plot:
        draw_latency(report, Path(plot))
    show_steps(report, people)
    show_limits(report.limits, people)
    if not report.passed:
        raise click.exceptions.Exit(3)
