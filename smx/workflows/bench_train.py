"""What a training step of both phases costs, beside plain networks and the plain formulas."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import count
from typing import TYPE_CHECKING

from smx import paper
from smx.errors import InputError
from smx.timing.interleave import in_blocks
from smx.timing.intervals import MIN_ROUNDS
from smx.timing.limits import Limit, judge
from smx.timing.machine import machine

if TYPE_CHECKING:
    from smx.stepbench.costs import StepReport


def bench_train(
    sizes: Sequence[int] = paper.LARGEST,
    *,
    pool: Sequence[str] = paper.PAPER_POOL,
    baselines: Sequence[str] = paper.PAPER_POOL,
    reference: str | None = None,
    plain: bool = True,
    batch_sizes: Sequence[int] = (128, 1024),
    rounds: int = 60,
    device: str = "cpu",
    threads: int = 2,
    compiled: bool = False,
    cuda_graphs: bool = False,
    seed: int = 0,
    limits: Sequence[str] = (),
    on_progress: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> StepReport:
    """Measure training steps of multilayer perceptrons: their time, in turn, and their memory.

    A step is what `smx train` does with a batch: forward, backward, clipping, Adam.

    Args:
        sizes: inputs, neurons of each hidden layer, outputs; by default those of the paper's largest network.
        pool: names of the activations that neurons choose from.
        baselines: names of the activations of the plain networks.
        reference: the candidate that ratios refer to; None is relu, or else the first baseline.
        plain: whether the paper's formulas as they are written are candidates.
        batch_sizes: examples a step.
        rounds: at least this many, in each of which every candidate runs a short burst.
        device: `cpu` or `cuda`.
        threads: of the CPU.
        compiled: also measure the reference and both phases by `torch.compile`.
        cuda_graphs: capture a step as a CUDA graph, and time its replay.
        seed: of weights, choices and batches.
        limits: stated limits, such as `phase 1/relu<=1.45@128`; see `smx.timing.limits.Limit`.
        on_progress: called before each round with what is measured, the number of finished rounds, and of all rounds.

    Raises:
        InputError: a name, a limit or the device can't be used.
    """
    import torch

    from smx.stepbench.costs import measure_steps
    from smx.stepbench.networks import PHASE1, PHASE2
    from smx.stepbench.networks import networks as make_networks

    before = machine()
    if limits and rounds < MIN_ROUNDS:
        raise InputError(f"a limit needs at least {MIN_ROUNDS} rounds to be judged, got {rounds}")
    if cuda_graphs and device != "cuda":
        raise InputError(f"CUDA graphs need the device cuda, got {device}")
    if device == "cuda" and not torch.cuda.is_available():
        raise InputError("the device is cuda, but this PyTorch finds no CUDA device; measure on the cpu")
    parsed = [Limit.parse(limit) for limit in limits]
    try:
        networks = make_networks(sizes, pool, baselines, plain=plain, seed=seed)
    except ValueError as error:
        raise InputError(str(error)) from error
    reference = reference or next(name for name in ("relu", *networks) if name in networks)
    if reference not in networks:
        raise InputError(f"the reference {reference!r} is not among the candidates {', '.join(networks)}")
    by_compiler = tuple(dict.fromkeys((reference, PHASE1, PHASE2))) if compiled else ()
    for limit in parsed:
        limit.check([*networks, *(f"{name}, compiled" for name in by_compiler)], batch_sizes)
    done, total = count(), len(batch_sizes) * math.prod(in_blocks(rounds))
    report = measure_steps(
        networks,
        baseline=reference,
        features=sizes[0],
        classes=sizes[-1],
        batch_sizes=batch_sizes,
        device=device,
        threads=threads,
        cuda_graphs=cuda_graphs,
        compiled=by_compiler,
        rounds=rounds,
        before=before,
        seed=seed,
        on_progress=lambda batch_size: on_progress(f"measuring, batch {batch_size}", next(done), total),
    )
    verdicts = tuple(verdict for limit in parsed for verdict in judge(limit, report))
    return replace(report, sizes=tuple(sizes), pool=tuple(pool), seed=seed, limits=verdicts)
