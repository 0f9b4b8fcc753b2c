"""The two layers: `Selective` learns the activation of each neuron (phase 1), `Mixed` has it fixed (phase 2)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from numbers import Integral
from typing import Any

import torch
from torch import Tensor, nn

from smx import functional
from smx.activations import Activation, Pool, resolve_pool
from smx.fused import basis, decisions, operators
from smx.fused.fixed import FixedChoice
from smx.fused.kept import OfTensor
from smx.limits import NEURONS
from smx.paper import KEEP, LAYER, MATCHED, NEURON, PAPER, PAPER_POOL, SELECTIONS, TEMPERATURE

START_LOGIT = 0.001
"""Each neuron starts with one random logit at this value and the others at 0, so that no two start alike."""

OBSERVED = 32
"""The moments of candidates are those of as many examples of a batch: their averages over batches are what counts."""

LEAD = 0.3
"""By how much the logit of a present activation begins above the others: some steps of evidence outweigh it."""

NEW_WEIGHT = 0.05
"""The share by which running averages move to the moments of a batch, or 1/n at batch n if that is more."""


class Selective(nn.Module):
    """Phase 1: every neuron chooses among the pool by a hard Gumbel-softmax with straight-through gradients.

    In `train()` each forward pass draws noise, one draw for the whole batch (eq. 1-6). In `eval()` each neuron
    uses its largest logit, without noise (eq. 8); `with smx.sampling(module)` keeps the noise on. Gradients are of
    first order, and not for `torch.func`, unless the pool has an activation that is no combination of the basis
    (smx/fused/README.md).

    Args:
        num_features: N, the neurons (or channels) on axis `dim` of the input.
        pool: names or activations, K of them.
        temperature: tau of eq. 2.
        selection: the rule, one of `smx.paper.SELECTIONS`. `matched`: the candidates are those of
            `smx.functional.matching`, by running averages of their `moments` (2, 1 + K, N) in training; and the logits
            of a neuron are its own plus those of its layer, `layer_logits` (K,).
        per: how many neurons, side by side, make one choice together, with one draw of the noise; `neuron` is 1, and
            `layer` is all of them. `logits` is (D, K) for D decisions, of which the last may have fewer neurons.
        dim: the axis of the neurons.
        device: where the logits are created.
        dtype: the logits' dtype.

    `begin` makes it start from activations that the neurons have, as `smx.select(..., start="current")` does.

    Input and output: (B, N, *) of any floating dtype, or N on another axis `dim`.

    Raises:
        ValueError: an argument is out of its range.
    """

    logits: nn.Parameter
    layer_logits: nn.Parameter | None
    moments: Tensor | None
    batches: Tensor
    present: Tensor | None
    explores: Tensor | None

    def __init__(
        self,
        num_features: int,
        pool: Iterable[str | Activation] = PAPER_POOL,
        temperature: float = TEMPERATURE,
        *,
        selection: str = PAPER,
        per: int | str = NEURON,
        dim: int = 1,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if not 1 <= num_features <= NEURONS or int(num_features) != num_features:
            raise ValueError(f"num_features must be a whole number from 1 to {NEURONS}, got {num_features}")
        if not 0 < temperature < math.inf:
            raise ValueError(f"temperature must be positive and finite, got {temperature}")
        if int(dim) != dim:
            raise ValueError(f"dim must be the number of an axis, got {dim!r}")
        if dtype is not None and not dtype.is_floating_point:
            raise ValueError(f"the logits have a floating dtype, got {dtype}")
        if selection not in SELECTIONS:
            raise ValueError(f"selection must be one of {', '.join(SELECTIONS)}, got {selection!r}")
        self.num_features = int(num_features)
        self.per = neurons_of(per, self.num_features)
        self.pool: Pool = resolve_pool(pool)
        self.temperature = temperature
        self.selection = selection
        self.dim = dim
        self.samples_in_eval = False
        self.observes = True  # whether a batch of training counts for the moments
        self.holds = False  # whether training, too, has the preferred activations, and no gradient reaches the logits
        self._table = basis.table_of(self.pool)
        self._matched = OfTensor()
        size = len(self.pool)
        decisions = math.ceil(num_features / self.per)
        self.logits = nn.Parameter(torch.empty(decisions, size, device=device, dtype=dtype))
        self.register_parameter("layer_logits", None)
        self.register_buffer("moments", None)
        self.register_buffer("present", None)
        self.register_buffer("explores", None)
        self.register_load_state_dict_pre_hook(_expect_present)  # type: ignore[no-untyped-call]
        self.register_load_state_dict_post_hook(_check_present)  # type: ignore[no-untyped-call]
        if selection == MATCHED:
            if decisions > 1:
                self.layer_logits = nn.Parameter(torch.empty(size, device=device, dtype=dtype))
            self.register_buffer("moments", torch.empty(2, 1 + size, num_features, device=device))
            self.register_buffer("batches", torch.empty((), device=device))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Start anew: as `begin` had it, or with logits of 0, but `START_LOGIT` for one of each decision, at random."""
        if self.present is None:
            self.choose(torch.randint(len(self.pool), (len(self.logits),), device=self.logits.device), START_LOGIT)
        else:
            self.choose(self.present, LEAD)
        if self.moments is not None:
            self.moments.zero_()
            self.batches.zero_()

    def begin(self, present: Tensor, keep: float = KEEP) -> None:
        """Start from the activations that the neurons have: in `eval()` each neuron has its own, to the bit.

        In a training step a few decisions explore: they alone draw noise, the others use their largest logit. The logit
        of the present activation begins `LEAD` above the others. So a decision that explores draws it with the
        probability q = exp(LEAD) / (exp(LEAD) + K - 1), at any temperature, since the sample is the argmax of logits
        plus noise. A share of (1 - keep) / (1 - q) explores, which makes `keep` the probability of the present
        activation at the start. All logits get a gradient in each step. Candidates that are matched get the moments of
        the present activation, not ReLU's.

        Args:
            present: int64 (D,), for each decision the index of its activation in the pool.
            keep: from q to less than 1.

        Raises:
            ValueError: an index is not in the pool, or `keep` is out of its range.
        """
        self._require_in_pool(present)
        size = len(self.pool)
        others = (size - 1) / (math.exp(LEAD) + size - 1)  # 1 - q
        if not others >= 1 - keep > 0 and size > 1:
            raise ValueError(f"keep must be from {1 - others:.3f}, for a pool of {size}, to less than 1, got {keep:g}")
        self.present = present.detach().to(self.logits.device, torch.int64, copy=True)
        self.explores = torch.tensor((1 - keep) / others if others else 0.0, device=self.logits.device)
        self.reset_parameters()

    @property
    def preferences(self) -> Tensor:
        """The logits that choose, (D, K): a decision's own, plus its layer's if the selection has those."""
        return self.logits if self.layer_logits is None else self.logits + self.layer_logits

    @property
    def decisions(self) -> Tensor:
        """The activation of each decision's largest logit (eq. 8): int64 (D,)."""
        return self.preferences.detach().argmax(1)

    @property
    def choice(self) -> Tensor:
        """The activation that each neuron has by `decisions`: int64 (N,)."""
        return self.of_neurons(self.decisions)

    def of_neurons(self, values: Tensor) -> Tensor:
        """Return for each neuron the value of its decision: (D, *) -> (N, *), a view where it is the same for all."""
        return decisions.of_neurons(values, self.per, self.num_features)

    def choose(self, decisions: Tensor, logit: float = 1.0) -> None:
        """Replace the logits by those of decisions that are made, int64 (D,): `logit` for each and 0 for the rest."""
        with torch.no_grad():
            self.logits.zero_().scatter_(1, decisions.to(self.logits.device)[:, None], logit)
            if self.layer_logits is not None:
                self.layer_logits.zero_()

    @property
    def matching(self) -> Tensor | None:
        """Scale and shift of every candidate of every neuron, (2, K, N); None where candidates are not matched."""
        if self.moments is None:
            return None
        # Elsewhere the moments may have been written without a trace, by `.data` or another process.
        lasting = self.training and not self.observes
        return self._matched(self.moments, self._match) if lasting else self._match(self.moments)

    def _match(self, moments: Tensor) -> Tensor:
        if self.present is None:
            return functional.matching(moments)
        candidates = moments[:, 1:]
        reference = operators.of_choice(candidates, self.of_neurons(self.present))
        return functional.matching(torch.cat([reference[:, None], candidates], 1))

    def forward(self, z: Tensor) -> Tensor:
        """Apply to each neuron its sampled activation or, in `eval()`, its preferred one."""
        _check_features(self, z)
        if self.training and self.observes and self.moments is not None and not _recomputing():
            self._observe(z, self.moments)
        matching = self.matching
        if not (self.samples_in_eval or (self.training and not self.holds)):
            mixed = functional.mixed if self.present is None else functional.mixed_plain  # which gives the same bits
            h = mixed(z, choice := self.choice, self.pool, self.dim)
            return h if matching is None else functional.rescaled(h, operators.of_choice(matching, choice), self.dim)
        logits = self.preferences
        dtype = torch.promote_types(logits.dtype, torch.float32)
        noise = functional.gumbel_noise(logits.shape, dtype=dtype, device=logits.device)
        if self.explores is not None:
            noise = noise * (torch.rand(len(noise), 1, device=noise.device) < self.explores)
        if self._table is not None:
            return operators.selective(z, logits, noise, self.temperature, self._table, self.dim, matching, self.per)
        logits, noise = self.of_neurons(logits), self.of_neurons(noise)
        return functional.selective_plain(z, logits, noise, self.temperature, self.pool, self.dim, matching)

    def _require_in_pool(self, present: Tensor) -> None:
        count, size = len(self.logits), len(self.pool)
        if present.shape != (count,) or not bool(((present >= 0) & (present < size)).all()):
            raise ValueError(f"present must be ({count},) indices from 0 to {size - 1}, got {present.tolist()}"[:200])

    def _observe(self, z: Tensor, running: Tensor) -> None:
        """Bring the running averages of the moments up to date with a batch.

        One value of each neuron has no deviation, and one that is not finite would never leave the averages.
        """
        part = z if self.dim % z.dim() == 0 else z[:OBSERVED]
        if part.numel() > self.num_features:
            new = functional.moments(part, self.pool, self.dim).to(running.dtype)
            new = torch.where(new.isfinite(), new, running)
            running.lerp_(new, self.batches.add_(1).reciprocal().clamp_min_(NEW_WEIGHT))

    def extra_repr(self) -> str:
        """Describe the layer in the module's printed tree."""
        names = ", ".join(activation.name for activation in self.pool)
        rule = "" if self.selection == PAPER else f", selection={self.selection}"
        rule += "" if self.per == 1 else f", per={self.per}"
        return f"{self.num_features}, pool=({names}), temperature={self.temperature:g}, dim={self.dim}{rule}"


class Mixed(nn.Module):
    """Phase 2: every neuron's activation is fixed, and neurons that share one are computed as a group (eq. 11).

    It is fastest for neurons that are sorted by their choice, as `smx.sort` makes them. Then autograd refuses an
    operation that writes into the result, as after `nn.ReLU`. Gradients are of first order, and not for `torch.func`,
    unless a neuron chose an activation that is no combination of the basis (smx/fused/README.md).

    Args:
        choice: int64 (N,), for each neuron the index of its activation in the pool.
        pool: names or activations, K of them.
        dim: the axis of the neurons.
        device: where the choice is kept; by default where it is.
        affine: (2, N), floating: a scale and a shift of each neuron, which puts out scale f(z) + shift. They are a
            buffer, which `smx.commit` makes where they can't move into other weights.

    The choice is a buffer: `.to()` moves it, `state_dict()` saves it. Change it by `load_state_dict()` alone.

    Input and output: (B, N, *) of any floating dtype, or N on another axis `dim`.

    Raises:
        ValueError: the choice is not int64 (N,), or has an index that is not in the pool.
    """

    choice: Tensor
    affine: Tensor | None

    def __init__(
        self,
        choice: Tensor | Iterable[int],
        pool: Iterable[str | Activation] = PAPER_POOL,
        *,
        dim: int = 1,
        device: torch.device | str | None = None,
        affine: Tensor | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(choice, Tensor):
            given = list(choice)
            if any(int(index) != index for index in given):
                raise ValueError(f"choice must be whole numbers, got {given[:5]}")
            choice = torch.tensor(given, dtype=torch.int64)
        self.pool: Pool = resolve_pool(pool)
        self.dim = dim
        self.num_features = choice.numel()
        self.register_buffer("choice", choice.detach().clone())
        if affine is not None and affine.shape != (2, self.num_features):
            raise ValueError(f"affine must be (2, {self.num_features}) for the choice, got {tuple(affine.shape)}")
        self.register_buffer("affine", None if affine is None else affine.detach().clone())
        self._fixed = FixedChoice(self.choice, self.pool)
        self.register_load_state_dict_pre_hook(_expect_affine)  # type: ignore[no-untyped-call]
        self.register_load_state_dict_post_hook(_prepare_anew)  # type: ignore[no-untyped-call]
        if device is not None:
            self.to(device)

    @property
    def group_sizes(self) -> dict[str, int]:
        """How many neurons chose each activation, in the pool's order, without the empty groups."""
        return {activation.name: size for activation, size in self._fixed.groups}

    def forward(self, z: Tensor) -> Tensor:
        """Apply to each neuron its activation (eq. 11)."""
        _check_features(self, z)
        h = self._fixed(z, self.choice, self.dim)
        return h if self.affine is None else functional.rescaled(h, self.affine, self.dim)

    def extra_repr(self) -> str:
        """Describe the layer in the module's printed tree."""
        sizes = ", ".join(f"{name}: {size}" for name, size in self.group_sizes.items())
        rescaled = "" if self.affine is None else ", with scale and shift"
        return f"{self.num_features}, {{{sizes}}}, dim={self.dim}{rescaled}"

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Mixed:
        self._fixed.apply(fn)
        return super()._apply(fn, recurse)  # type: ignore[no-untyped-call,no-any-return]


def neurons_of(per: int | str, num_features: int) -> int:
    """Return how many neurons of a layer make one choice together; `per` is as for `Selective`.

    Raises:
        ValueError: `per` is no such number or word.
    """
    words = {NEURON: 1, LAYER: num_features}
    found = words.get(per) if isinstance(per, str) else per
    if not isinstance(found, Integral) or isinstance(found, bool) or found < 1:
        raise ValueError(f"per must be {NEURON}, {LAYER} or how many neurons choose together, got {per!r}")
    return min(int(found), num_features)


def layers_of(module: nn.Module) -> dict[str, Selective | Mixed]:
    """Return the layers of a module whose neurons have activations of their own, by path."""
    return {path: part for path, part in module.named_modules() if isinstance(part, Selective | Mixed)}


def selectives(module: nn.Module) -> list[Selective]:
    """Return the selective layers of a module, in the order of its parts."""
    return [part for part in module.modules() if isinstance(part, Selective)]


@contextmanager
def sampling(module: nn.Module) -> Iterator[None]:
    """Keep the Gumbel noise of every `Selective` in `module` on in `eval()`, as for the paper's phase 1 figures."""
    layers = {layer: layer.samples_in_eval for layer in selectives(module)}
    try:
        for layer in layers:
            layer.samples_in_eval = True
        yield
    finally:
        for layer, value in layers.items():
            layer.samples_in_eval = value


def _expect_affine(module: nn.Module, state: Mapping[str, Any], prefix: str, *_: Any) -> None:
    """Let a layer without scale and shift load a state that has them."""
    assert isinstance(module, Mixed)
    if module.affine is None and (saved := state.get(f"{prefix}affine")) is not None:
        module.affine = torch.empty_like(saved, device=module.choice.device)


def _expect_present(module: nn.Module, state: Mapping[str, Any], prefix: str, *_: Any) -> None:
    """Let a layer load the state of one that began with the activations that neurons had."""
    assert isinstance(module, Selective)
    if module.present is None and f"{prefix}present" in state:
        module.present = torch.zeros(len(module.logits), dtype=torch.int64, device=module.logits.device)
        module.explores = torch.zeros((), device=module.logits.device)


def _check_present(module: nn.Module, incompatible_keys: Any) -> None:
    assert isinstance(module, Selective)
    if module.present is not None:
        module._require_in_pool(module.present)


def _prepare_anew(module: nn.Module, incompatible_keys: Any) -> None:
    assert isinstance(module, Mixed)
    module._fixed = FixedChoice(module.choice, module.pool)


def _recomputing() -> bool:
    """Say whether a backward pass runs: what gradient checkpointing computes again has been observed."""
    return not torch.compiler.is_compiling() and torch._C._current_graph_task_id() != -1


def _check_features(layer: Selective | Mixed, z: Tensor) -> None:
    if not -z.dim() <= layer.dim < z.dim() or z.shape[layer.dim] != layer.num_features:
        raise ValueError(
            f"{type(layer).__name__} expects {layer.num_features} features on axis {layer.dim},"
            f" got an input of shape {tuple(z.shape)}"
        )
    if not z.is_floating_point():
        raise ValueError(f"{type(layer).__name__} expects floating values, got {z.dtype}")
