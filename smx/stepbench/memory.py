"""How much memory does a training step take? Counted by PyTorch's allocators, byte by byte."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.profiler import ProfilerActivity, profile

from smx.stepbench.candidates import Build
from smx.stepbench.step import on_device, stepping

ALLOCATION = "[memory]"
"""What the profiler calls an allocation (its bytes are positive) or a release (negative)."""
CPU = 0
"""The CPU among its device types."""


@dataclass(frozen=True, kw_only=True)
class StepMemory:
    """What a step of a candidate takes, in bytes, beyond its weights, the optimiser's state and the batch.

    Attributes:
        activations: at most at a time in the forward and backward pass, without the gradients of weights, whose size
            has nothing to do with the batch.
        saved: kept from the forward pass for the backward pass.
        accumulating: at most at a time in both passes, when they add to gradients that are there already; each product
            that is added is counted, weights' included.
        step: at most at a time in a whole step, which makes its gradients anew; all of them are counted.
    """

    activations: int
    saved: int
    accumulating: int
    step: int


def step_memory(build: Build, inputs: Sequence[NDArray[Any]], device: str = "cpu") -> StepMemory:
    """Count what a step takes; see `StepMemory`.

    Args:
        build: makes the network.
        inputs: a batch, x (B, F) and y (B,).
        device: `cpu` or `cuda`.
    """
    model, (x, y) = build().to(device), on_device(inputs, device)
    step = stepping(model, x, y)
    step()  # what is made once and for all is there now, and so are the gradients
    small = [parameter for name, parameter in model.named_parameters() if not name.endswith(".weight")]

    def loss() -> Tensor:
        return F.cross_entropy(model(x), y)

    def passes() -> None:
        loss().backward()  # type: ignore[no-untyped-call]

    def without_weights() -> None:
        # For these leaves backward does everything but the products that are the weights' gradients. One of those
        # would be larger than all activations of a small batch, and hide what differs between the candidates.
        loss().backward(inputs=small)  # type: ignore[no-untyped-call]

    activations, accumulating = (peak_bytes(run, device) for run in (without_weights, passes))
    saved = saved_bytes(loss, (x, y, *model.parameters(), *model.buffers()))
    model.zero_grad()
    return StepMemory(activations=activations, saved=saved, accumulating=accumulating, step=peak_bytes(step, device))


def peak_bytes(run: Callable[[], object], device: str = "cpu") -> int:
    """Return how many bytes of tensors `run` has at most at a time, beyond what was there before.

    On CUDA, sizes are rounded up as PyTorch's allocator does it (to 512 bytes). What kernels take without asking
    PyTorch is not seen.

    Args:
        run: the work; what it takes once and for all, such as workspaces, it should have taken before.
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
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.json"
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
    """Return how many bytes autograd keeps for the backward pass of `forward`, each storage counted once.

    Args:
        forward: returns what `backward` would be called on.
        existing: tensors that don't count, such as weights and inputs, since they are there anyway.
    """
    storages = {tensor.untyped_storage().data_ptr(): 0 for tensor in existing}
    alive = []  # so that no address is given to a second storage

    def count(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        storages.setdefault(storage.data_ptr(), storage.nbytes())
        alive.append(storage)
        return tensor

    with saved_tensors_hooks(count, lambda tensor: tensor):
        forward()
    return sum(storages.values())
