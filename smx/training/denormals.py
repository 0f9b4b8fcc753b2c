"""Denormal numbers, which a processor computes up to a hundred times slower than others: training takes them as 0.

Gradients become so small where a network is saturated, for example by the softmax before the loss in the author's
protocol. Numbers below 1.2e-38, the smallest normal number of float32, are far too small to change a weight.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

SMALL = 1e-40
"""In float32 a denormal number."""
DIVIDED = 1 << 17
"""So many values are divided among PyTorch's threads."""


@contextmanager
def flushed() -> Iterator[None]:
    """Let this thread take denormal numbers as 0; PyTorch's other threads stay as they are."""
    _make_threads()  # now: a thread inherits for ever what the one has that makes it
    before = flushes()
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(before)


def flush_other_threads() -> None:
    """Let PyTorch's other threads take denormal numbers as 0, in a process of our own that has not made them yet."""
    before = flushes()
    torch.set_flush_denormal(True)
    _make_threads()
    torch.set_flush_denormal(before)


def flushes() -> bool:
    """Say whether this thread takes denormal numbers as 0."""
    return float(torch.tensor(SMALL, dtype=torch.float32) * 1) == 0


def _make_threads() -> None:
    torch.zeros(DIVIDED).add_(1)
