"""The two layers: `Selective` learns each neuron's activation (phase 1), `Mixed` has it fixed (phase 2)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from smx import functional
from smx.activations import Activation, Pool, resolve_pool
from smx.fused import basis, operators
from smx.fused.constants import lasts
from smx.paper import PAPER_POOL, TEMPERATURE

START_LOGIT = 0.001
"""Each neuron starts with one random logit at this value and the others at 0, so that no two start alike."""


class Selective(nn.Module):
    """Phase 1: every neuron chooses among the pool by a hard Gumbel-softmax with straight-through gradients.

    In `train()` each forward pass draws noise, one draw for the whole batch (eq. 1-6). In `eval()` each neuron
    uses its largest logit, without noise (eq. 8); `with smx.sampling(module)` keeps the noise on. Gradients are of
    first order, and not for `torch.func`, unless the pool has a user's own activation.

    Args:
        num_features: N, the neurons (or channels) on axis `dim` of the input.
        pool: names or activations, K of them.
        temperature: tau of eq. 2.
        dim: the axis of the neurons.
        device: where the logits are created.
        dtype: the logits' dtype.

    Input and output: (B, N, *) of any floating dtype, or N on another axis `dim`.
    """

    logits: nn.Parameter

    def __init__(
        self,
        num_features: int,
        pool: Iterable[str | Activation] = PAPER_POOL,
        temperature: float = TEMPERATURE,
        dim: int = 1,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if num_features < 1:
            raise ValueError(f"num_features must be at least 1, got {num_features}")
        if not temperature > 0:
            raise ValueError(f"temperature must be positive, got {temperature}")
        self.num_features = num_features
        self.pool: Pool = resolve_pool(pool)
        self.temperature = temperature
        self.dim = dim
        self.samples_in_eval = False
        self._table = basis.table_of(self.pool)
        self.logits = nn.Parameter(torch.empty(num_features, len(self.pool), device=device, dtype=dtype))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Set the logits to 0, and one entry of each neuron, drawn at random, to `START_LOGIT`."""
        with torch.no_grad():
            favourite = torch.randint(len(self.pool), (self.num_features, 1), device=self.logits.device)
            self.logits.zero_().scatter_(1, favourite, START_LOGIT)

    @property
    def choice(self) -> Tensor:
        """The activation each neuron would commit to now (eq. 8): int64 (N,)."""
        return self.logits.detach().argmax(1)

    def forward(self, z: Tensor) -> Tensor:
        """Apply to each neuron its sampled (or, in eval, its preferred) activation; see the class."""
        _check_features(self, z)
        if not (self.training or self.samples_in_eval):
            return functional.mixed(z, self.choice, self.pool, self.dim)
        dtype = torch.promote_types(self.logits.dtype, torch.float32)
        noise = functional.gumbel_noise(self.logits.shape, dtype=dtype, device=self.logits.device)
        if self._table is None:
            return functional.selective_plain(z, self.logits, noise, self.temperature, self.pool, self.dim)
        return operators.selective(z, self.logits, noise, self.temperature, self._table, self.dim)

    def extra_repr(self) -> str:
        """Describe the layer in the module's printed tree."""
        return f"{self.num_features}, pool=({_names(self.pool)}), temperature={self.temperature:g}, dim={self.dim}"


class Mixed(nn.Module):
    """Phase 2: every neuron's activation is fixed, and neurons that share one are computed as a group (eq. 11).

    Where gradients are wanted, and under `torch.compile`, several groups are one combination of functions
    (`smx.fused`), whatever the neurons' order. Otherwise, or if a neuron chose an activation that is not of them, the
    layer is split, activations, cat; for that, neurons that do not stand sorted by their choice, as `smx.sort` puts
    them, are brought into order and back. Gradients are of first order, and not for `torch.func`; what writes into the
    result of sorted neurons is refused by autograd, as after `nn.ReLU`.

    Args:
        choice: int64 (N,), for each neuron the index of its activation in the pool.
        pool: names or activations, K of them.
        dim: the axis of the neurons.

    The choice is a buffer: it moves with `.to()`, is saved by `state_dict()`, and changes by `load_state_dict()` alone.

    Input and output: (B, N, *) of any floating dtype, or N on another axis `dim`.
    """

    choice: Tensor
    _order: Tensor | None
    _inverse: Tensor | None

    def __init__(
        self, choice: Tensor | Iterable[int], pool: Iterable[str | Activation] = PAPER_POOL, dim: int = 1
    ) -> None:
        super().__init__()
        if not isinstance(choice, Tensor):
            choice = torch.tensor(list(choice), dtype=torch.int64)
        self.pool: Pool = resolve_pool(pool)
        self.dim = dim
        self.register_buffer("choice", choice.detach().clone())
        self._group_neurons()
        self.register_load_state_dict_post_hook(_regroup)  # type: ignore[no-untyped-call]

    @property
    def num_features(self) -> int:
        """N, the neurons on axis `dim` of the input."""
        return self.choice.numel()

    @property
    def group_sizes(self) -> dict[str, int]:
        """How many neurons chose each activation, in the pool's order, without the empty groups."""
        return {self.pool[k].name: size for k, size in self._sizes.items()}

    def forward(self, z: Tensor) -> Tensor:
        """Apply to each neuron its activation (eq. 11)."""
        _check_features(self, z)
        if self._table is not None:
            if torch.compiler.is_compiling():
                return operators.combine(z, self.choice, self._table, self.dim)
            if z.requires_grad and torch.is_grad_enabled():
                return operators.combine_prepared(z, self._numbers(z), self.dim, keep_result=self._order is None)
        ordered = z if self._order is None else z.index_select(self.dim, self._order)
        h = self._by_group(ordered)
        return h if self._inverse is None else h.index_select(self.dim, self._inverse)

    def extra_repr(self) -> str:
        """Describe the layer in the module's printed tree."""
        sizes = ", ".join(f"{name}: {size}" for name, size in self.group_sizes.items())
        return f"{self.num_features}, {{{sizes}}}, dim={self.dim}"

    def _numbers(self, z: Tensor) -> operators.Numbers:
        """Return the choice as `smx.fused` takes it, prepared once for each device, dtype and number of axes."""
        key = (z.device, z.dtype, z.dim(), self.dim)
        if key in self._prepared:
            return self._prepared[key]
        assert self._table is not None
        numbers = operators.prepare(z, self.choice, self._table, self.dim)
        if lasts(numbers[0]):
            self._prepared[key] = numbers
        return numbers

    def _by_group(self, z: Tensor) -> Tensor:
        """Split, activations, cat; in memory as z is."""
        functions = [self.pool[k].function for k in self._sizes]
        if len(functions) == 1:
            h = functions[0](z)
            return z.clone() if h is z else h
        parts = torch.split_with_sizes(z, list(self._sizes.values()), self.dim)
        values = [function(part) for function, part in zip(functions, parts, strict=True)]
        if torch.is_grad_enabled() or torch.compiler.is_compiling():
            return torch.cat(values, self.dim)
        return torch.cat(values, self.dim, out=torch.empty_like(z, dtype=values[0].dtype))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Mixed:
        self._prepared.clear()
        return super()._apply(fn, recurse)  # type: ignore[no-untyped-call,no-any-return]

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what would stay on the old device when the layer is loaded onto another one."""
        return {**self.__dict__, "_prepared": {}}

    def _group_neurons(self) -> None:
        choice = self.choice
        if choice.dim() != 1 or choice.dtype != torch.int64 or choice.numel() == 0:
            raise ValueError(f"choice must be int64 (N,) with N >= 1, got {choice.dtype} {tuple(choice.shape)}")
        if not 0 <= int(choice.min()) <= int(choice.max()) < len(self.pool):
            raise ValueError(
                f"choice must index the pool's {len(self.pool)} activations,"
                f" got values from {int(choice.min())} to {int(choice.max())}"
            )
        counts = torch.bincount(choice, minlength=len(self.pool)).tolist()
        self._sizes = {k: size for k, size in enumerate(counts) if size}
        in_order = bool((choice.diff() >= 0).all())
        # One activation for all neurons is best left to PyTorch.
        self._table = basis.table_of(self.pool, self._sizes) if len(self._sizes) > 1 else None
        self._prepared: dict[tuple[torch.device, torch.dtype, int, int], operators.Numbers] = {}
        order = None if in_order else choice.argsort(stable=True)
        # Buffers, so that they are on the right device, but not saved: choice has it all.
        self.register_buffer("_order", order, persistent=False)
        self.register_buffer("_inverse", None if order is None else order.argsort(), persistent=False)


@contextmanager
def sampling(module: nn.Module) -> Iterator[None]:
    """Keep the Gumbel noise of every `Selective` in `module` on in `eval()`, as for the paper's phase 1 figures."""
    layers = [layer for layer in module.modules() if isinstance(layer, Selective)]
    before = [layer.samples_in_eval for layer in layers]
    try:
        for layer in layers:
            layer.samples_in_eval = True
        yield
    finally:
        for layer, value in zip(layers, before, strict=True):
            layer.samples_in_eval = value


def _regroup(module: nn.Module, incompatible_keys: Any) -> None:
    assert isinstance(module, Mixed)
    module._group_neurons()


def _check_features(layer: Selective | Mixed, z: Tensor) -> None:
    if not -z.dim() <= layer.dim < z.dim() or z.shape[layer.dim] != layer.num_features:
        raise ValueError(
            f"{type(layer).__name__} expects {layer.num_features} features on axis {layer.dim},"
            f" got an input of shape {tuple(z.shape)}"
        )


def _names(pool: Pool) -> str:
    return ", ".join(activation.name for activation in pool)
