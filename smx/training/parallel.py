"""Data-parallel training under torchrun: `Ranks` is what one process knows of the others."""

from __future__ import annotations

import inspect
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from smx.ending import in_ranks
from smx.errors import InputError

T = TypeVar("T")
# DDP need not copy rank 0's buffers to the others before every step; torch 2.13 has another name for that.
_RENAMED = "forward_sync_buffers" in inspect.signature(DistributedDataParallel).parameters
_LOCAL_BUFFERS: dict[str, Any] = {"forward_sync_buffers" if _RENAMED else "broadcast_buffers": False}


class Share(NamedTuple):
    """A rank's part of a batch.

    Attributes:
        indices: int64 (b,), of the examples.
        weights: float32 (b,): the rank minimises the sum of the examples' losses times these weights. None if the rank
            has the whole batch; then it minimises the mean.
        examples: how many the loss is the mean of: the batch's length divided by the number of ranks.
    """

    indices: Tensor
    weights: Tensor | None
    examples: float


@dataclass(frozen=True)
class Ranks:
    """This process among `size` that train one network together; by default it is alone.

    Every rank has the same weights and the same state of its random generator, and takes its share of every batch.
    Rank 0 is the main one: only this one writes files and shows progress.
    """

    rank: int = 0
    size: int = 1
    local_size: int = 1
    """The number of ranks on this machine."""

    @property
    def main(self) -> bool:
        """Whether this is rank 0."""
        return self.rank == 0

    def share(self, batch: Tensor, device: torch.device | None = None) -> Share:
        """Return this rank's part of a batch of indices, int64 (B,).

        Every rank gets ceil(B / size) examples, so that the layers of all ranks draw the same noise. Where a part would
        be shorter, examples from the batch's start fill it up, with weight 0. The others have the weight size / B: the
        mean over the ranks of their weighted sums is the mean over the batch, for every B.

        The weights are made on `device`, or on that of `batch`.
        """
        if self.size == 1:
            return Share(batch, None, len(batch))
        count = -(-len(batch) // self.size)
        first, end = self.rank * count, (self.rank + 1) * count
        places = torch.arange(first, end, device=batch.device)  # in main memory, when the examples lie there
        weights = (torch.arange(first, end, device=device or batch.device) < len(batch)) * (self.size / len(batch))
        return Share(batch[places % len(batch)], weights, len(batch) / self.size)

    def wrap(self, model: nn.Module) -> nn.Module:
        """Return a network with the same weights, whose gradients are averaged over the ranks.

        BatchNorm computes its statistics over the rank's own share. On CUDA the model's BatchNorm layers are replaced
        by SyncBatchNorm, which computes them over the whole batch.
        """
        if self.size == 1:
            return model
        if next(model.parameters()).is_cuda:
            model = nn.SyncBatchNorm.convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]
        # In a static graph there may be parameters that the loss does not depend on, as in one process.
        return DistributedDataParallel(model, static_graph=True, **_LOCAL_BUFFERS)

    def sum(self, *values: Tensor) -> list[float]:
        """Return the sums of scalars over all ranks, in one reduction."""
        total = torch.stack([value.double() for value in values])
        if self.size > 1:
            dist.all_reduce(total)
        return list(total.tolist())

    def average_buffers(self, model: nn.Module) -> None:
        """Average the floating buffers (BatchNorm's statistics) over the ranks, so that all have the same."""
        if self.size > 1:
            for buffer in model.buffers():
                if buffer.is_floating_point():
                    dist.all_reduce(buffer)
                    buffer /= self.size

    def of_main(self, value: T) -> T:
        """Return the value that rank 0 has."""
        if self.size == 1:
            return value
        values = [value]
        dist.broadcast_object_list(values)
        return values[0]

    @contextmanager
    def main_first(self) -> Iterator[None]:
        """Let rank 0 run a block before the others, for example to download what they then find on the disk."""
        if not self.main:
            self.wait()
        try:
            yield
        finally:
            if self.main:
                self.wait()

    def wait(self) -> None:
        """Wait until every rank is here."""
        if self.size > 1:
            dist.barrier()


ALONE = Ranks()


@contextmanager
def joined() -> Iterator[Ranks]:
    """Join the other processes if torchrun started this one; leave them at the end.

    Tensors on the CPU are exchanged by gloo, on CUDA by NCCL, each rank with the device that LOCAL_RANK names. Without
    a CUDA device for each rank of this machine only the CPU can be used; see `require_device`.

    Raises:
        InputError: RANK and a WORLD_SIZE above 1 are set, but not all other variables that torchrun sets.
    """
    if not in_ranks():
        yield ALONE
        return
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_PORT", "MASTER_ADDR")
    found = {name: os.environ.get(name, "") for name in names}
    numbers = [int(found[name]) for name in names[:5] if found[name].isdecimal()]
    if len(numbers) < 5 or not found["MASTER_ADDR"] or numbers[0] >= numbers[1]:
        text = " ".join(f"{name}={value}" for name, value in found.items())
        raise InputError(f"RANK says that this is one of several processes, but not all is set ({text}); use torchrun")
    rank, size, local_rank, local_size, _ = numbers
    cuda = local_size <= torch.cuda.device_count()
    if cuda:
        torch.cuda.set_device(local_rank)
    dist.init_process_group("cpu:gloo,cuda:nccl" if cuda else "gloo")
    yield Ranks(rank, size, local_size)
    dist.barrier()  # gloo may abort a rank whose partner has left already
    dist.destroy_process_group()  # not after an error: it would wait for the others, and the process ends anyway


def require_device(name: str, ranks: Ranks) -> None:
    """Raise InputError if the device `name` is missing, or has fewer devices than this machine has ranks."""
    devices = torch.cuda.device_count()
    if name == "cuda" and not devices:
        raise InputError("the device is cuda, but this PyTorch finds no CUDA device; start a new run with --device cpu")
    if name == "cuda" and ranks.size > 1 and devices < ranks.local_size:
        raise InputError(
            f"this machine has {devices} CUDA devices; give --nproc-per-node at most {devices}, or --device cpu"
        )
