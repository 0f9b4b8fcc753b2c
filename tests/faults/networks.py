"""The networks that faults are planted in."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import nn

from smx.layers import Mixed
from smx.models import mlp
from smx.paper import PAPER_POOL


@contextmanager
def one_thread() -> Iterator[None]:
    """Let PyTorch run on one thread, which is fastest for many small networks."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def choice(neurons: int, pool: tuple[str, ...], seed: int) -> Mixed:
    """Return a layer in which every activation occurs, in random order."""
    order = torch.randperm(neurons, generator=torch.Generator().manual_seed(seed))
    return Mixed(order % len(pool), pool)


def dense() -> nn.Module:
    """Return a multilayer perceptron; its second layer has GELU, too."""
    torch.manual_seed(0)
    sizes = (20, 24, 16, 16, 5)
    return mlp(sizes, lambda i: choice(sizes[i], (*PAPER_POOL, *(["gelu"] if i == 2 else [])), i)).eval()


def convolutional() -> nn.Module:
    """Return a network with BatchNorm, padding and pooling."""
    torch.manual_seed(0)

    def block(conv: nn.Conv2d, seed: int) -> nn.Module:
        norm = nn.BatchNorm2d(conv.out_channels)
        for values in (norm.running_mean, norm.weight, norm.bias):
            values.data.normal_(1.0, 0.2)  # type: ignore[union-attr]
        norm.running_var.uniform_(0.05, 0.2)  # type: ignore[union-attr]
        return nn.Sequential(OrderedDict(conv=conv, norm=norm, activation=choice(conv.out_channels, PAPER_POOL, seed)))

    parts = OrderedDict(
        block1=block(nn.Conv2d(2, 8, 3), 1),
        block2=block(nn.Conv2d(8, 12, 3, stride=2, padding=1), 2),
        pool=nn.AvgPool2d(3),
        flatten=nn.Flatten(),
        output=nn.Linear(12, 5),
    )
    return nn.Sequential(parts).eval()


NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "dense": (dense, (20,)),
    "convolutional": (convolutional, (2, 8, 8)),
}
"""The networks, with the shape of their examples."""
