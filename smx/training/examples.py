"""The examples of a run, normalised, where the training step can take them from without waiting."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from smx.data import Dataset
from smx.errors import InputError
from smx.preprocessing import normalise

MEMORY_SHARE = 0.5
"""The examples may take at most this share of the device's free memory; the rest is for the network."""


@dataclass(frozen=True)
class Examples:
    """A split: x float32 (B, *), y int64 (B,), on the training device or, where they don't fit, in main memory."""

    x: Tensor
    y: Tensor
    device: torch.device

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


def load_examples(dataset: Dataset, input_shape: Sequence[int], device: str) -> tuple[Examples, Examples, Examples]:
    """Return the training, validation and test examples, normalised, on the device if all of them fit.

    Raises:
        InputError: the examples have more or fewer values than the network takes.
    """
    splits = []
    for split in (dataset.train, dataset.validation, dataset.test):
        try:
            x = normalise(torch.from_numpy(split.x), dataset.maximum, input_shape).contiguous()
        except InputError as error:
            raise InputError(f"{dataset.name}: {error}") from error
        splits.append(Examples(x, torch.from_numpy(split.y), torch.device(device)))
    if fits(splits, device):
        splits = [replace(split, x=split.x.to(device), y=split.y.to(device)) for split in splits]
    train, validation, test = splits
    return train, validation, test


def fits(splits: Sequence[Examples], device: str) -> bool:
    """Tell whether splits fit on a device, with room for the network."""
    if torch.device(device).type != "cuda":
        return True
    free, _ = torch.cuda.mem_get_info()
    return sum(split.x.nbytes + split.y.nbytes for split in splits) <= MEMORY_SHARE * free
