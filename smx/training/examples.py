"""The examples of a run, where the training step can take them from without waiting."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from smx.data import Split

MEMORY_SHARE = 0.5
"""Of the device's free memory the examples may take at most this; the rest is for the network."""


@dataclass(frozen=True)
class Examples:
    """A split: x float32 (B, *), y int64 (B,), on the training device or, where they don't fit, in main memory."""

    x: Tensor
    y: Tensor
    device: torch.device

    @classmethod
    def of(cls, split: Split, device: str, *, resident: bool = True) -> Examples:
        """Take a split, and copy it to the device if it is to be `resident` there."""
        x, y = torch.from_numpy(split.x), torch.from_numpy(split.y)
        return cls(x.to(device), y.to(device), torch.device(device)) if resident else cls(x, y, torch.device(device))

    def __len__(self) -> int:
        return len(self.y)

    def batch(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Return the examples of some indices (B,), on the training device.

        From main memory they go through pinned memory, so that the copy runs while the device computes.
        """
        indices = indices.to(self.x.device)
        if self.x.device.type == self.device.type:
            return self.x[indices], self.y[indices]
        return self._copied(self.x, indices), self._copied(self.y, indices)

    def _copied(self, source: Tensor, indices: Tensor) -> Tensor:
        rows = torch.empty((len(indices), *source.shape[1:]), dtype=source.dtype, pin_memory=True)
        torch.index_select(source, 0, indices, out=rows)
        return rows.to(self.device, non_blocking=True)


def fits(splits: list[Split], device: str) -> bool:
    """Tell whether splits fit on a device, with room for the network."""
    if torch.device(device).type != "cuda":
        return True
    free, _ = torch.cuda.mem_get_info()
    return sum(split.x.nbytes + split.y.nbytes for split in splits) <= MEMORY_SHARE * free
