"""What training steps of several networks cost: time and memory, side by side."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from smx.stepbench.memory import StepMemory, step_memory
from smx.stepbench.networks import Build
from smx.stepbench.runner import DEFAULTS, StepRunner
from smx.timing.bench import run_bench
from smx.timing.limits import Verdict
from smx.timing.machine import machine
from smx.timing.report import TimingReport
from smx.training.config import TrainConfig
from smx.training.isolation import isolated


@dataclass(frozen=True, kw_only=True)
class MemoryRow(StepMemory):
    """The memory of one network's steps at one batch size.

    Attributes:
        name: of the network.
        batch_size: examples a step.
        ratio: `accumulating` / `accumulating` of the baseline.
    """

    name: str
    batch_size: int
    ratio: float


@dataclass(frozen=True, kw_only=True)
class StepReport(TimingReport):
    """The cost of training steps of all networks at all batch sizes; a run is one step.

    Attributes:
        device: `cpu` or `cuda`.
        threads: of the CPU.
        cuda_graphs: whether steps were captured and replayed.
        memory: in the order of `results`.
        sizes: of the networks: inputs, neurons of each hidden layer, outputs.
        pool: names of the activations that neurons choose from.
        seed: of weights, choices and batches.
        limits: the verdict on each stated limit.
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
        """Whether no limit is certainly exceeded."""
        return not any(verdict.exceeded for verdict in self.limits)


@isolated()
def measure_steps(
    networks: Mapping[str, Build],
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
    configs: Mapping[str, TrainConfig] | None = None,
    before: Mapping[str, Any] | None = None,
    seed: int = 0,
    on_progress: Callable[[int], None] = lambda batch_size: None,
) -> StepReport:
    """Time training steps in turn, see `smx.timing.interleave.time_in_turn`, and count their memory.

    All networks run in this process, on the same random batches, which stay on the device; the baseline is measured a
    second time as a control. Each block builds the networks anew.

    Args:
        networks: functions that make a network (B, features) -> (B, classes), by name.
        baseline: name of the network that ratios refer to.
        features, classes: of the networks.
        batch_sizes: examples a step.
        device: `cpu` or `cuda`.
        threads: of the CPU.
        cuda_graphs: capture steps and time their replay; memory is that of steps that are not captured.
        compiled: names of networks that are also measured by `torch.compile`, as `NAME, compiled`; their time only.
        rounds: at least this many in all.
        configs: the settings of a network's steps, by name, where they are not the default ones.
        before: what `smx.timing.machine.machine` returned before this process began to work; None asks now.
        seed: of the batches and of the order.
        on_progress: see `smx.timing.interleave.time_in_turn`.
    """
    before, configs = before or machine(), configs or {}
    batches = {size: _batch(size, features, classes, seed) for size in batch_sizes}

    def runner(name: str, *, by_compiler: bool = False) -> StepRunner:
        config = configs.get(name, DEFAULTS)
        return StepRunner(networks[name], device, config, cuda_graphs=cuda_graphs, compiled=by_compiler)

    with _threads(threads):
        memory = tuple(_memory(networks, configs, baseline, batches, device))
        report = run_bench(
            {
                **{name: runner(name) for name in networks},
                **{f"{name}, compiled": runner(name, by_compiler=True) for name in compiled},
            },
            batches,
            baseline=baseline,
            control=runner(baseline),
            rounds=rounds,
            before=before,
            seed=seed,
            on_progress=on_progress,
        )
    if device == "cuda":
        report.machine["gpu"] = torch.cuda.get_device_name()
    return StepReport(**vars(report), device=device, threads=threads, cuda_graphs=cuda_graphs, memory=memory, seed=seed)


def _memory(
    networks: Mapping[str, Build],
    configs: Mapping[str, TrainConfig],
    baseline: str,
    batches: Mapping[int, Sequence[NDArray[Any]]],
    device: str,
) -> Iterator[MemoryRow]:
    for size, inputs in batches.items():
        by_name = {
            name: step_memory(build, inputs, device, configs.get(name, DEFAULTS)) for name, build in networks.items()
        }
        for name, memory in by_name.items():
            ratio = memory.accumulating / by_name[baseline].accumulating
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
