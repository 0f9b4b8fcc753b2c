"""Training steps of several networks against each other: how long each takes, and how much memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from smx.stepbench.candidates import Build
from smx.stepbench.memory import StepMemory, step_memory
from smx.stepbench.step import StepRunner
from smx.timing.interleave import in_blocks, time_in_turn
from smx.timing.intervals import LEVEL
from smx.timing.limits import Verdict
from smx.timing.machine import machine
from smx.timing.report import TimingReport, doubts, few, rows


@dataclass(frozen=True, kw_only=True)
class MemoryRow(StepMemory):
    """What one candidate takes at one batch size.

    Attributes:
        name: the candidate's.
        batch_size: examples a step.
        ratio: of `accumulating` to the baseline's.
    """

    name: str
    batch_size: int
    ratio: float


@dataclass(frozen=True, kw_only=True)
class StepReport(TimingReport):
    """All candidates at all batch sizes; a run is one step of training.

    Attributes:
        device: `cpu` or `cuda`.
        threads: of the CPU.
        cuda_graphs: whether steps were captured and replayed.
        memory: in the order of `results`.
        sizes: of the networks: inputs, neurons of each hidden layer, outputs.
        pool: names of the activations that neurons choose from.
        seed: of weights, choices and batches.
        limits: what the measurement says of the stated limits.
    """

    device: str
    threads: int
    cuda_graphs: bool
    memory: tuple[MemoryRow, ...]
    sizes: tuple[int, ...] = ()
    pool: tuple[str, ...] = ()
    seed: int = 0
    limits: tuple[Verdict, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether no limit is surely exceeded."""
        return not any(verdict.exceeded for verdict in self.limits)


def measure_steps(
    candidates: Mapping[str, Build],
    *,
    baseline: str,
    features: int,
    classes: int,
    batch_sizes: Sequence[int] = (128, 1024),
    device: str = "cpu",
    threads: int = 2,
    cuda_graphs: bool = False,
    compiled: Sequence[str] = (),
    rounds: int = 60,
    before: Mapping[str, Any] | None = None,
    seed: int = 0,
    on_progress: Callable[[int], None] = lambda batch_size: None,
) -> StepReport:
    """Time training steps in turn, see `smx.timing.interleave.time_in_turn`, and count their memory.

    All candidates run in this process, on the same random batches, which stay on the device; the baseline runs once
    more as a control. In each block they have new networks.

    Args:
        candidates: what makes a network (B, features) -> (B, classes), by name.
        baseline: the name of the candidate that ratios refer to.
        features, classes: of the networks.
        batch_sizes: examples a step.
        device: `cpu` or `cuda`.
        threads: of the CPU.
        cuda_graphs: capture steps and replay them; memory is that of steps that are not captured.
        compiled: names of candidates that are measured by `torch.compile`, too, as `NAME, compiled`; only their time.
        rounds: altogether, at least.
        before: what `smx.timing.machine.machine` said before this process began to work; None asks now.
        seed: of the batches and of the order.
        on_progress: called before each round of each batch size.

    Raises:
        ValueError: there is no such baseline, or steps are to be captured on the CPU.
    """
    if baseline not in candidates:
        raise ValueError(f"the baseline {baseline!r} is not among the candidates {', '.join(candidates)}")
    if cuda_graphs and device != "cuda":
        raise ValueError(f"steps can be captured on cuda alone, got {device}")
    before = dict(before or machine())
    control = f"{baseline} again"
    batches = {size: _batch(size, features, classes, seed) for size in batch_sizes}
    blocks, each_block = in_blocks(rounds)
    runners = {
        name: StepRunner(build, device, cuda_graphs=cuda_graphs)
        for name, build in {**candidates, control: candidates[baseline]}.items()
    }
    by_compiler = {
        f"{name}, compiled": StepRunner(candidates[name], device, cuda_graphs=cuda_graphs, compiled=True)
        for name in compiled
    }
    with _threads(threads):
        memory = tuple(_memory(candidates, baseline, batches, device))
        timings = time_in_turn(
            runners | by_compiler,
            batches,
            blocks=blocks,
            rounds=each_block,
            seed=seed,
            on_progress=on_progress,
        )
    results = rows(timings, [*candidates, *by_compiler], baseline, batches)
    repeated = rows(timings, [control], baseline, batches)
    now = machine()
    gpu = {"gpu": torch.cuda.get_device_name()} if device == "cuda" else {}
    return StepReport(
        baseline=baseline,
        device=device,
        threads=threads,
        cuda_graphs=cuda_graphs,
        blocks=blocks,
        rounds=blocks * each_block,
        level=LEVEL,
        machine={**now, "load": before["load"], "load_after": now["load"], **gpu},
        results=results,
        control=repeated,
        memory=memory,
        warnings=(*few(blocks * each_block), *doubts(results, repeated, baseline, before, timings)),
        timings=timings,
    )


def _memory(
    candidates: Mapping[str, Build], baseline: str, batches: Mapping[int, Sequence[NDArray[Any]]], device: str
) -> Iterator[MemoryRow]:
    for size, inputs in batches.items():
        taken = {name: step_memory(build, inputs, device) for name, build in candidates.items()}
        for name, memory in taken.items():
            ratio = memory.accumulating / taken[baseline].accumulating
            yield MemoryRow(name=name, batch_size=size, ratio=ratio, **vars(memory))


def _batch(size: int, features: int, classes: int, seed: int) -> list[NDArray[Any]]:
    random = np.random.default_rng(seed)
    return [random.random((size, features), np.float32), random.integers(classes, size=size)]


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
