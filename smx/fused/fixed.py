"""A choice that stays: the groups of neurons that `smx.Mixed` computes, and what is prepared for it once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from smx.activations import Pool
from smx.fused import operators
from smx.fused.basis import lasts, table_of


class FixedChoice:
    """What a choice int64 (N,) means for a layer; the choice itself is the layer's buffer.

    The constructor needs the choice's values, so not on the device `meta`, and raises the errors of `smx.Mixed`.
    """

    def __init__(self, choice: Tensor, pool: Pool) -> None:
        if choice.dim() != 1 or choice.dtype != torch.int64 or choice.numel() == 0:
            raise ValueError(f"choice must be int64 (N,) with N >= 1, got {choice.dtype} {tuple(choice.shape)}")
        lowest, highest = int(choice.min()), int(choice.max())
        if not 0 <= lowest <= highest < len(pool):
            raise ValueError(
                f"choice must index the pool's {len(pool)} activations, got values from {lowest} to {highest}"
            )
        counts = torch.bincount(choice, minlength=len(pool)).tolist()
        sizes = {k: size for k, size in enumerate(counts) if size}
        self.groups = [(pool[k], size) for k, size in sizes.items()]
        # For one activation PyTorch's own function is the fastest.
        self._table = table_of(pool, sizes) if len(sizes) > 1 else None
        self._rows = tuple((self._table[k], size) for k, size in sizes.items()) if self._table else ()
        self._numbers: dict[object, operators.Numbers] = {}
        self._order: Tensor | None = None
        if not bool((choice.diff() >= 0).all()):
            self._order = choice.argsort(stable=True)
            self._inverse = self._order.argsort()

    def __call__(self, z: Tensor, choice: Tensor, dim: int) -> Tensor:
        """Apply to each neuron its activation (eq. 11), for the choice that was given to `__init__`."""
        if self._table is not None:
            if torch.compiler.is_compiling():
                if self._order is None:
                    return operators.combine(z, self._rows, dim, keep_result=True)
                return operators.combine(z, operators.prepare(z, choice, self._table, dim), dim)
            if z.requires_grad and torch.is_grad_enabled():
                key = (z.device, z.dtype, z.dim(), dim)
                numbers = self._numbers.get(key)
                if numbers is None:
                    numbers = operators.prepare(z, choice, self._table, dim)
                    if lasts(numbers[0]):
                        self._numbers[key] = numbers
                return operators.combine(z, numbers, dim, keep_result=self._order is None)
        if self._order is None:
            return self._by_group(z, dim)
        order, inverse = self._order, self._inverse
        if order.device != z.device:  # FSDP and DataParallel move buffers without `nn.Module._apply`
            order, inverse = order.to(z.device), inverse.to(z.device)
        return self._by_group(z.index_select(dim, order), dim).index_select(dim, inverse)

    def _by_group(self, z: Tensor, dim: int) -> Tensor:
        """Split sorted neurons into their groups, apply the activations, and concatenate; in the layout of z."""
        if len(self.groups) == 1:
            h = self.groups[0][0].function(z)
            return z.clone() if h is z else h
        parts = torch.split_with_sizes(z, [size for _, size in self.groups], dim)
        values = [activation.function(part) for (activation, _), part in zip(self.groups, parts, strict=True)]
        if torch.is_grad_enabled() or torch.compiler.is_compiling():
            return torch.cat(values, dim)
        return torch.cat(values, dim, out=torch.empty_like(z, dtype=values[0].dtype))

    def apply(self, fn: Callable[[Tensor], Tensor]) -> None:
        """Do what `nn.Module._apply` does with buffers, such as moving them to another device."""
        self._numbers.clear()
        if self._order is not None:
            self._order, self._inverse = fn(self._order), fn(self._inverse)

    def __getstate__(self) -> dict[str, Any]:
        """Leave the numbers out: they would stay on the old device when the layer is loaded onto another one."""
        return {**self.__dict__, "_numbers": {}}
