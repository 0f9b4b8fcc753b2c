"""What a training step of both phases costs, beside plain networks and the plain formulas."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from smx import paper
from smx.errors import InputError
from smx.limits import NEURONS
from smx.timing.limits import judge
from smx.timing.machine import machine
from smx.workflows import OnProgress, listed, silent
from smx.workflows.measuring import by_round, check_measurement, parse_limits, pick_reference

if TYPE_CHECKING:
    from smx.stepbench.costs import StepReport


def bench_train(
    sizes: Sequence[int] = paper.LARGEST,
    *,
    pool: Sequence[str] = paper.PAPER_POOL,
    baselines: Sequence[str] | None = None,
    selection: Sequence[str] = (),
    reference: str | None = None,
    plain: bool = True,
    batch_sizes: int | Sequence[int] = (128, 1024),
    rounds: int = 60,
    device: str = "cpu",
    threads: int = 2,
    compiled: bool = False,
    cuda_graphs: bool = False,
    seed: int = 0,
    limits: Sequence[str] = (),
    on_progress: OnProgress = silent,
) -> StepReport:
    """Measure training steps of multilayer perceptrons: their time, in turn, and their memory.

    A step is what `smx train` does with a batch: forward, backward, clipping, Adam.

    Args:
        sizes: inputs, neurons of each hidden layer, outputs; by default those of the paper's largest network.
        pool: names of the activations that neurons choose from.
        baselines: names of the activations of the plain networks; None is the paper's pool.
        selection: rules by which neurons choose that are measured beside the paper's: `matched`, `recommended`.
        plain: whether the paper's formulas as they are written are candidates.
        batch_sizes: examples a step.
        device: `cpu` or `cuda`.
        threads: of the CPU.
        compiled: also measure the reference and both phases by `torch.compile`.
        cuda_graphs: capture a step as a CUDA graph, and time its replay.
        seed: of weights, choices and batches.
        reference, rounds, limits, on_progress: see `smx.bench`.

    Raises:
        InputError: a name, a limit or the device can't be used.
    """
    import torch

    from smx.stepbench.costs import measure_steps
    from smx.stepbench.networks import PHASE1, PHASE2, phase1
    from smx.stepbench.networks import networks as make_networks
    from smx.training.config import from_values

    if len(sizes) < 3 or not all(isinstance(size, int) and 1 <= size <= NEURONS for size in sizes):
        raise InputError(f"sizes must be inputs, neurons of one or more layers, and outputs, got {list(sizes)}")
    if device not in ("cpu", "cuda"):
        raise InputError(f"the device must be cpu or cuda, got {device!r}")
    baselines = paper.PAPER_POOL if baselines is None else listed(baselines)
    selection, limits = listed(selection), listed(limits)
    batch_sizes = tuple(dict.fromkeys(listed(batch_sizes)))
    check_measurement(batch_sizes, rounds, threads)
    before = machine()
    parsed = parse_limits(limits, rounds)
    if cuda_graphs and device != "cuda":
        raise InputError(f"CUDA graphs need the device cuda, got {device}")
    if device == "cuda" and not torch.cuda.is_available():
        raise InputError("the device is cuda, but this PyTorch finds no CUDA device; measure on the cpu")
    rules = [rule for rule in dict.fromkeys(selection) if rule != paper.PAPER]  # which is measured anyway
    configs = {phase1(rule): from_values({"selection": rule, "pool": pool}) for rule in rules}
    try:
        networks = make_networks(sizes, pool, baselines, rules=rules, plain=plain, seed=seed)
    except ValueError as error:
        raise InputError(str(error)) from error
    reference = pick_reference(reference, tuple(networks))
    by_compiler = tuple(dict.fromkeys((reference, PHASE1, *configs, PHASE2))) if compiled else ()
    for limit in parsed:
        limit.check([*networks, *(f"{name}, compiled" for name in by_compiler)], batch_sizes)
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
        configs=configs,
        before=before,
        seed=seed,
        on_progress=by_round(on_progress, batch_sizes, rounds),
    )
    verdicts = tuple(verdict for limit in parsed for verdict in judge(limit, report))
    return replace(report, sizes=tuple(sizes), pool=tuple(pool), seed=seed, limits=verdicts)
