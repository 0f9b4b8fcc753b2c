"""`smx bench-train`: what a training step of both phases costs, beside plain networks and the plain formulas."""

from __future__ import annotations

import math
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
from rich.progress import Progress

from smx import paper
from smx.cli.options import Command, Names, Numbers, OutputPath, json_option, logs, rounds_option, write_json
from smx.errors import InputError

REFERENCE = "relu"


def _listed(values: Any) -> str:
    return ",".join(map(str, values))


@click.command(cls=Command)
@click.option(
    "--hidden",
    type=Numbers(),
    default=_listed(paper.LARGEST[1:-1]),
    show_default=True,
    help="Neurons of each hidden layer; the default is the paper's largest network.",
)
@click.option(
    "--inputs", type=click.IntRange(min=1), default=paper.LARGEST[0], show_default=True, metavar="N", help="Features."
)
@click.option(
    "--classes", type=click.IntRange(min=2), default=paper.LARGEST[-1], show_default=True, metavar="N", help="Classes."
)
@click.option(
    "--pool",
    type=Names(),
    default=_listed(paper.PAPER_POOL),
    show_default=True,
    help="The activations that neurons choose from.",
)
@click.option(
    "--baselines",
    type=Names(),
    default=_listed(paper.PAPER_POOL),
    show_default=True,
    help="Activations of the plain networks; ratios refer to relu, or to the first one.",
)
@click.option("--plain/--no-plain", default=True, show_default=True, help="Measure the plain formulas, too.")
@click.option("--batch-sizes", type=Numbers(), default="128,1024", show_default=True, help="Examples a step.")
@rounds_option
@click.option("--device", default="cpu", show_default=True, metavar="NAME", help="cpu or cuda.")
@click.option(
    "--threads", type=click.IntRange(min=1), default=2, show_default=True, metavar="N", help="Threads of the CPU."
)
@click.option(
    "--compile", "compiled", is_flag=True, help="Measure the reference and both phases by torch.compile, too."
)
@click.option("--cuda-graphs", is_flag=True, help="Capture a step as a CUDA graph, and time its replay.")
@click.option(
    "--seed", type=click.IntRange(0, 2**32 - 1), default=0, show_default=True, metavar="SEED", help="Of everything."
)
@click.option(
    "--limit",
    "limits",
    multiple=True,
    metavar="A/B<=X[@BATCH]",
    help="End with exit code 3 if A's time is surely above X times B's; \"phase 1/relu<=1.45@128\", for example.",
)
@json_option
@click.option("--plot", type=OutputPath(".png"), metavar="PATH.png", help="Draw the distributions.")
def bench_train(
    hidden: tuple[int, ...],
    inputs: int,
    classes: int,
    pool: tuple[str, ...],
    baselines: tuple[str, ...],
    plain: bool,
    batch_sizes: tuple[int, ...],
    rounds: int,
    device: str,
    threads: int,
    compiled: bool,
    cuda_graphs: bool,
    seed: int,
    limits: tuple[str, ...],
    json_path: str | None,
    plot: str | None,
) -> None:
    """Measure steps of training: their time and their memory.

    A step is what smx train does with a batch: forward, backward, clipping, Adam. All candidates take steps in turn;
    the ratio to the ReLU network within a round is what to quote, with its 99 % confidence interval. "plain" are the
    paper's formulas as they are written; in "phase 2" smx.sort has sorted the neurons by what they chose.

    \b
    smx bench-train --compile --json steps.json --plot steps.png
    smx bench-train --device cuda --cuda-graphs --batch-sizes 128,8192
    smx bench-train --no-plain --limit "phase 1/relu<=1.45@128"
    """
    from smx.timing.interleave import in_blocks
    from smx.timing.intervals import MIN_ROUNDS
    from smx.timing.limits import Limit, judge
    from smx.timing.machine import machine

    before = machine()
    if limits and rounds < MIN_ROUNDS:
        raise InputError(f"a limit needs at least {MIN_ROUNDS} rounds to be judged, got {rounds}")
    if not baselines:
        raise InputError("--baselines must name an activation that the ratios refer to, such as relu; got none")
    if device not in ("cpu", "cuda"):
        raise InputError(f"--device must be cpu or cuda, got {device!r}")
    if cuda_graphs and device != "cuda":
        raise InputError(f"--cuda-graphs needs --device cuda, got {device}")
    parsed = [Limit.parse(limit) for limit in limits]
    # PyTorch's profiler, which counts memory, greets on standard error at every start, unless it is told not to before
    # torch is loaded.
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")
    import torch

    from smx.cli.bench_tables import show_verdicts
    from smx.cli.bench_train_tables import show_steps
    from smx.stepbench.costs import measure_steps
    from smx.stepbench.networks import PHASE1, PHASE2
    from smx.stepbench.networks import networks as make_networks

    if plot:
        from smx.figures.latency import draw_latency
    if device == "cuda" and not torch.cuda.is_available():
        raise InputError("the device is cuda, but this PyTorch finds no CUDA device; measure with --device cpu")
    sizes = (inputs, *hidden, classes)
    try:
        networks = make_networks(sizes, pool, baselines, plain=plain, seed=seed)
    except ValueError as error:
        raise InputError(str(error)) from error
    reference = REFERENCE if REFERENCE in baselines else baselines[0]
    by_compiler = (reference, PHASE1, PHASE2) if compiled else ()
    for limit in parsed:
        limit.check([*networks, *(f"{name}, compiled" for name in by_compiler)], batch_sizes)
    notes = logs()
    with Progress(console=notes, disable=not notes.is_terminal) as progress:
        task = progress.add_task("counting memory", total=len(batch_sizes) * math.prod(in_blocks(rounds)))
        report = measure_steps(
            networks,
            baseline=reference,
            features=inputs,
            classes=classes,
            batch_sizes=batch_sizes,
            device=device,
            threads=threads,
            cuda_graphs=cuda_graphs,
            compiled=by_compiler,
            rounds=rounds,
            before=before,
            seed=seed,
            on_progress=lambda batch: progress.update(task, advance=1, description=f"measuring, batch {batch}"),
        )
    show_steps(report, "-".join(map(str, sizes)), json_path)
    verdicts = [verdict for limit in parsed for verdict in judge(limit, report)]
    show_verdicts(verdicts, json_path)
    settings = {"sizes": sizes, "pool": pool, "seed": seed}
    write_json(json_path, {**report.to_dict(), **settings, "limits": [asdict(verdict) for verdict in verdicts]})
    if plot:
        draw_latency(report, Path(plot))
    if any(verdict.exceeded for verdict in verdicts):
        raise click.exceptions.Exit(3)
