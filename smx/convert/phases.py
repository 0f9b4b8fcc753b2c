"""From a plain module to phase 1 (`select`), and from phase 1 to phase 2 (`commit`)."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from smx.activations import Activation, resolve_pool
from smx.convert.dissolving import dissolve
from smx.convert.folding import fold, next_linears
from smx.convert.modularize import ACTIVATIONS, Types, heed_activations
from smx.convert.preparing import prepare
from smx.convert.starting import named, present
from smx.convert.table import Plan
from smx.example_input import ExampleInput
from smx.fused.operators import of_choice
from smx.layers import Mixed, Selective, layers_of, selectives
from smx.paper import (
    KEEP,
    NEURON,
    PAPER_POOL,
    RANDOM,
    RECOMMENDED,
    RECOMMENDED_SETTINGS,
    STARTS,
    TEMPERATURE,
    default_selection,
)
from smx.wrappers import copied, unwrapped

ACTIVATION_MODULES: Types = tuple(ACTIVATIONS.values())
"""The modules that `select` replaces: PyTorch's elementwise activations."""


def plan(
    module: nn.Module,
    *,
    example_input: ExampleInput | None = None,
    types: Types = ACTIVATION_MODULES,
    include: Any = (),
    exclude: Any = (),
    dim: Mapping[str, int] | None = None,
) -> Plan:
    """Return what `select` does with each activation of `module` if it gets the same arguments: a table.

    `str()` shows the table; its rows have the path, the call, the name, the neurons and their axis, and why it is left.

    Raises:
        ValueError: as for `select`, but not if nothing can be selected.
    """
    return prepare(module, example_input, types, include, exclude, dim)[1]


def select(
    module: nn.Module,
    pool: Iterable[str | Activation] = PAPER_POOL,
    *,
    example_input: ExampleInput | None = None,
    temperature: float = TEMPERATURE,
    selection: str | None = None,
    per: int | str | None = None,
    start: str | None = None,
    keep: float = KEEP,
    types: Types = ACTIVATION_MODULES,
    include: Any = (),
    exclude: Any = (),
    dim: Mapping[str, int] | None = None,
) -> nn.Module:
    """Return a copy of `module` in which every hidden activation is a `Selective`, with one choice for each neuron.

    1. Each use of an activation gets its own `Selective`. A module that is used once is replaced under its path. Where
       a forward calls functions (`F.relu(x)`, `x.sigmoid_()`) or one module several times, it is rewritten, see
       `smx.convert.modularize.modularize`. A block that is called several times keeps one set of neurons.
    2. Left are PReLU and RReLU; what reaches an output of the network without a layer with weights after it; gates,
       which are multiplied with another value; parts of a formula; what runs inside a recurrence; and what is not
       called in `eval()`. `include` selects them nevertheless.
    3. The axis of the neurons follows from the operators that made the value, see `smx.convert.neurons`; an axis that
       varies with the batch, the length or the size of the inputs is never it. Where it stays open, the activation is
       left, and a warning asks for `dim`.
    4. The network runs in `eval()` before and after it is rewritten, also on inputs of another batch, length and size,
       if it takes such, and the outputs must agree. Use random values, since zeros hide differences.
    5. No activation is in place any more. Where the same forward reads an overwritten input again, it now reads the
       result.
    6. A forward is not rewritten if that would change its course. Its modules are replaced nevertheless; a warning
       names the first of its functions, which stay.
    7. Numbers and flags that a rewritten forward reads from its module (`self.p` in `F.dropout(x, self.p)`) keep the
       values that they had at `select`.

    `smx.plan` with the same arguments says all that beforehand.

    Args:
        module: any module; it stays as it is. What torch.compile or DataParallel put around it is left away.
        pool: names or activations.
        example_input: a tensor or array, or a tuple of the arguments, for the dry runs; those by name in a dict, which
            may end the tuple. None: an input is inferred from the first layer, see `smx.example_input.infer`.
        temperature: tau of eq. 2.
        selection: the rule by which the neurons choose, `paper` or `matched`; see `smx.Selective`. None: `paper`, or
            `matched` unless the start is random, since then a sample of the others hardly disturbs the network.
            `recommended`: `matched` from ReLU with one choice a layer, unless `start` or `per` is given; add
            `smx.pricing.ExpectedPrice` to the loss, weighted by 0.1, and let the layers hold (`holds = True`) until the
            loss is half of what it was at first.
        per: what makes one choice: `neuron` (the default), `layer`, or a number of neurons side by side; see
            `smx.Selective`.
        start: `random` (the default): each neuron begins with an activation that is drawn. `current`: with the one that
            it has, so that the result computes in `eval()` what `module` computes, to the bit (a formula: what
            PyTorch's function of it computes), and training explores from there. A name of the pool: each with that.
        keep: unless the start is random, the probability of a neuron's first activation in a sample at the start; see
            `smx.Selective.begin`.
        types: the module types that are activations at all. A function counts as its module: `F.relu` as `nn.ReLU`.
            Your own types are allowed.
        include: what to select beside the hidden activations: a path, the path of a module around it, a glob, a module
            type, a function, or a list of such.
        exclude: what to leave, in the same way.
        dim: the axis of the neurons, by the path of the activation.

    Raises:
        ValueError: nothing can be selected; the selection, `per` or `start` is unknown; `keep` is out of its range; a
            pattern or a path names nothing; no input can be inferred; the module can't be copied or changed; or the
            rewritten network gives other outputs.
        InputError: with `current`, an activation of the network is not in the pool.
    """
    preset = RECOMMENDED_SETTINGS if selection == RECOMMENDED else {}
    selection = preset.get("selection", selection)
    per = preset.get("per", NEURON) if per is None else per
    start = preset.get("start", RANDOM) if start is None else start
    rule = selection or default_selection(start)
    resolved = resolve_pool(pool)
    first = None if start in STARTS else named(start, resolved)
    if start == RANDOM and not 0 < keep < 1:
        raise ValueError(f"keep must be between 0 and 1, got {keep}")
    module, made_plan = prepare(module, example_input, types, include, exclude, dim)
    if not made_plan.selected:
        reasons = [f"{path or 'it'} is left: {reason}" for path, reason in made_plan.left.items()]
        if layers_of(module):
            reasons = ["its neurons have activations of their own already; start from the network as it was"]
        raise ValueError("; ".join([f"{type(module).__name__} has no activation to select", *reasons[:3]]))
    if made_plan.warning:
        warnings.warn(made_plan.warning, stacklevel=2)
    device = next((parameter.device for parameter in module.parameters()), None)
    rows = {row.path: row for row in made_plan.selected}
    made: dict[nn.Module, nn.Module] = {}
    for path, part in module.named_modules():
        if row := rows.get(path):
            assert row.neurons is not None
            assert row.dim is not None
            how: dict[str, Any] = {"selection": rule, "per": per, "dim": row.dim, "device": device}
            made[part] = layer = Selective(row.neurons, resolved, temperature, **how)
            if start != RANDOM:
                begins = present(path, part, resolved) if first is None else first
                layer.begin(torch.full((len(layer.logits),), begins), keep)
    return replace(module, made)


def commit(module: nn.Module, *, min_share: float = 0.0, max_groups: int = 0) -> nn.Module:
    """Return a copy of `module` in which every `Selective` is a `Mixed` with its largest logits' choice (eq. 8).

    Everything else, weights and training mode included, is kept; hooks of the layers that are replaced are not. Of a
    matched layer, scale and shift of each neuron's choice move into the Linear after it, where the modules are a plain
    chain without hooks and `dim` is -1; elsewhere the `Mixed` has them. Either way the network computes in `eval()`
    what it computed before, unless small groups are dissolved.

    Args:
        module: a network of phase 1; it stays as it is.
        min_share, max_groups: limits that keep the network fast, see `smx.convert.dissolve`; training on heals it.
            `smx.convert.dissolved` says what they cost.

    Raises:
        ValueError: `module` has no `Selective`, or can't be copied; or a limit is out of its range.
    """
    module = copied(unwrapped(module))
    layers = selectives(module)
    if not layers:
        raise ValueError(f"{type(module).__name__} has no Selective layer to commit; smx.select makes them")
    consumers = next_linears(module)
    chosen = {layer: layer.of_neurons(dissolve(layer, min_share, max_groups)) for layer in layers}
    return replace(module, {layer: _committed(layer, chosen[layer], consumers.get(layer)) for layer in layers})


def _committed(layer: Selective, choice: Tensor, consumer: nn.Linear | None) -> Mixed:
    """Return the `Mixed` of a layer; its scale and shift move into the consumer, if there is one."""
    matching = layer.matching
    if matching is None:
        return Mixed(choice, layer.pool, dim=layer.dim)
    affine = of_choice(matching, choice)
    if consumer is not None:
        fold(consumer, affine)
    trivial = consumer is not None or bool((affine == affine.new_tensor([[1.0], [0.0]])).all())
    return Mixed(choice, layer.pool, dim=layer.dim, affine=None if trivial else affine)


def replace(module: nn.Module, made: Mapping[nn.Module, nn.Module]) -> nn.Module:
    """Replace parts of a module by new ones, in the same mode, and return the module; it is changed in place."""
    for old, new in made.items():
        new.train(old.training)
    if module in made:
        return made[module]
    for path, part in list(module.named_modules(remove_duplicate=False)):
        if part in made:
            module.set_submodule(path, made[part])
    for part in module.modules():
        for name, value in vars(part).items():
            if name not in _OF_MODULES:
                vars(part)[name] = _held(value, made)
    heed_activations(module)
    return module


_OF_MODULES = vars(nn.Module()).keys()


def _held(value: Any, made: Mapping[nn.Module, nn.Module]) -> Any:
    """Return what a module holds in plain lists, tuples and dicts, with the new parts in place of the old ones."""
    if isinstance(value, nn.Module):
        return made.get(value, value)
    if type(value) is list:
        value[:] = [_held(each, made) for each in value]
    elif type(value) is dict:
        value.update({key: _held(each, made) for key, each in value.items()})
    elif type(value) is tuple:
        return tuple(_held(each, made) for each in value)
    return value
