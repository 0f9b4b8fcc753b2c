"""The interface of the three backends, `eager`, `triton` and `traced`, and the choice among them."""

from __future__ import annotations

import importlib
import importlib.util
from functools import cache
from typing import Any, Protocol, cast

import torch
from torch import Tensor

from smx.fused import eager, traced
from smx.fused.basis import Table

Numbers = Any
"""The numbers of each neuron's activation, in the form that a backend's passes take."""


class Backend(Protocol):
    """What computes h = sum over j of c[j] b_j(z), for c = C[:, choice], and its gradients. Each backend is a module.

    Shapes: z, h, g and g_z are (B, N, *), or have N on another axis `dim`, and one floating dtype. They may have any
    layout in memory, and results have that of z. N neurons, K activations, J sums a neuron, as the backend has them.
    """

    def numbers(self, table: Table, choice_N: Tensor, z: Tensor, dim: int, fixed: bool, /) -> tuple[Tensor, Numbers]:
        """Look up the numbers of each neuron's activation.

        Args:
            table: of the pool.
            choice_N: int64, indices into the pool.
            z: its device, dtype and number of axes count alone.
            dim: the axis of the neurons.
            fixed: whether they are for `backward_fixed`; otherwise for `backward`.

        Returns:
            All numbers as one tensor, and in the form that the passes take, which may be views of it.
        """

    def forward(self, z: Tensor, numbers: Numbers, dim: int, /) -> Tensor:
        """Return h."""

    def backward(self, g: Tensor, z: Tensor, numbers: Numbers, dim: int, /) -> tuple[Tensor, Tensor]:
        """Return g_z = g dh/dz, and sums over all axes but the neurons', (J, N), for `sums_of_pool`.

        At z = 0 the slope is that of z < 0, as in PyTorch's ReLU, Leaky ReLU, ELU and SELU.
        """

    def sums_of_pool(self, sums_JN: Tensor, table: Table, /) -> Tensor:
        """Return the sums of g f_k(z) for every activation of the pool, (K, N)."""

    def backward_fixed(self, g: Tensor, kept: Tensor, numbers: Numbers, dim: int, keeps_result: bool, /) -> Tensor:
        """Return g_z for a fixed choice, where `kept` is h if `keeps_result`, otherwise z."""


def backend_for(z: Tensor) -> Backend:
    """Return `traced` under `torch.compile`, `triton` on a GPU if Triton is installed, otherwise `eager`."""
    if torch.compiler.is_compiling():
        return traced
    return (_triton() or eager) if z.is_cuda else eager


@cache
def _triton() -> Backend | None:
    if importlib.util.find_spec("triton") is None:
        return None
    return cast(Backend, importlib.import_module("smx.fused.triton"))
