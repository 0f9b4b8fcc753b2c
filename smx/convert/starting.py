"""Which activation of a pool neurons start from: one that is named, or the one that a module computes."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

import torch
from torch import Tensor, nn

from smx.activations import Activation, get
from smx.errors import InputError
from smx.paper import STARTS

_FAR = torch.tensor([0.0, 1e-6, 10, 30, 100, 1e4])
_GRID = torch.cat([torch.linspace(-8, 8, 257), _FAR, -_FAR])


def named(start: str, pool: Sequence[Activation]) -> int:
    """Return the index in the pool of the activation that a start names.

    Raises:
        ValueError: the pool has none of this name.
    """
    names = [activation.name for activation in pool]
    with suppress(ValueError):
        return names.index(start if start in names else get(start).name)
    raise ValueError(f"start must be one of {', '.join([*STARTS, *names])}, got {start!r}")


def present(path: str, module: nn.Module, pool: Sequence[Activation]) -> int:
    """Return the index in the pool of the activation that a module computes: with the same values, to the bit.

    Raises:
        InputError: it is not in the pool.
    """
    with torch.no_grad():
        values: Tensor = module(_GRID.clone())
        for k, activation in enumerate(pool):
            if torch.equal(activation.function(_GRID), values):
                return k
    names = ", ".join(activation.name for activation in pool)
    raise InputError(
        f"start='current' needs the present activation of {path!r}, {module}, in the pool ({names}); add it, as a name"
        ' or as smx.Activation("name", function), or exclude this path'
    )
