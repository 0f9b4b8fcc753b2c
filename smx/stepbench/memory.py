"""The memory of a training step, in bytes, as PyTorch's allocators count it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.profiler import ProfilerActivity, profile

from smx.files import scratch
from smx.stepbench.networks import Build
from smx.stepbench.runner import DEFAULTS, training_step
from smx.training.config import TrainConfig
from smx.training.step import OBSERVE_EVERY

ALLOCATION = "[memory]"
"""The profiler's event of an allocation (positive bytes) or a release (negative bytes)."""
CPU = 0
"""The profiler's device type of the CPU."""


@dataclass(frozen=True, kw_only=True)
class StepMemory:
    """The memory of one step in bytes, beyond the weights, the optimiser's state and the batch.

    Attributes:
        activations: peak of the forward and backward pass without the weights' gradients, whose size does not depend on
            the batch.
        saved: what the forward pass keeps for the backward pass.
        accumulating: peak of both passes when they add to gradients that exist already; a weight's new gradient counts
            until it is added.
        step: peak of a whole step, which allocates all gradients anew.
    """

    activations: int
    saved: int
    accumulating: int
    step: int


def step_memory(
    build: Build, inputs: Sequence[NDArray[Any]], device: str = "cpu", config: TrainConfig = DEFAULTS
) -> StepMemory:
    """Count the memory of a step.

    Args:
        build: makes the network.
        inputs: a batch, x (B, F) and y (B,).
        device: `cpu` or `cuda`.
        config: the settings, see `training_step`.
    """
    model, (x, y) = build().to(device), (torch.from_numpy(array).to(device) for array in inputs)
    step = training_step(model, x, y, config)
    for _ in range(OBSERVE_EVERY):  # the first allocates the gradients and what else is allocated once
        step()
    small = [parameter for name, parameter in model.named_parameters() if not name.endswith(".weight")]

    def loss() -> Tensor:
        return F.cross_entropy(model(x), y)

    def passes() -> None:
        loss().backward()  # type: ignore[no-untyped-call]

    def without_weights() -> None:
        # The gradients of biases and logits need the whole backward pass except the products that are the weights'
        # gradients. One such product is larger than all activations of a small batch, and would hide the differences
        # between the networks.
        loss().backward(inputs=small)  # type: ignore[no-untyped-call]

    activations, accumulating = (peak_bytes(run, device) for run in (without_weights, passes))
    saved = saved_bytes(loss, (x, y, *model.parameters(), *model.buffers()))
    model.zero_grad()
    return StepMemory(activations=activations, saved=saved, accumulating=accumulating, step=peak_bytes(step, device))


def peak_bytes(run: Callable[[], object], device: str = "cpu") -> int:
    """Return the peak of the bytes of tensors during `run`, beyond those that existed before.

    On CUDA, PyTorch's allocator rounds sizes up to 512 bytes. Memory that kernels allocate themselves is not counted.

    Args:
        run: the work; call it once before if it allocates something only the first time, such as workspaces.
        device: `cpu` or `cuda`.
    """
    if device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run()
        return int(torch.cuda.max_memory_allocated()) - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        run()
    with scratch() as folder:
        path = folder / "trace.json"
        profiler.export_chrome_trace(str(path))
        events = json.loads(path.read_bytes())["traceEvents"]
    changes: list[tuple[float, int]] = [
        (event["ts"], event["args"]["Bytes"])
        for event in events
        if event["name"] == ALLOCATION and event["args"]["Device Type"] == CPU
    ]
    changes.sort(key=lambda change: change[0])  # by time; the order of the file where that is equal
    return max(accumulate((size for _, size in changes), initial=0))


def saved_bytes(forward: Callable[[], Tensor], existing: Iterable[Tensor] = ()) -> int:
    """Return the bytes that autograd keeps for the backward pass of `forward`; each storage counts once.

    Args:
        forward: returns the tensor that `backward` would be called on.
        existing: tensors that exist anyway, such as weights and inputs, and don't count.
    """
    storages = {tensor.untyped_storage().data_ptr(): 0 for tensor in existing}
    alive = []  # no address is reused by a second storage

    def count(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        storages.setdefault(storage.data_ptr(), storage.nbytes())
        alive.append(storage)
        return tensor

    with saved_tensors_hooks(count, lambda tensor: tensor):
        forward()
    return sum(storages.values())
