"""From a plain module to phase 1 (`select`), and from phase 1 to phase 2 (`commit`)."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor, nn

from smx.activations import Activation, resolve_pool
from smx.convert.channels import channels_by_definition, channels_by_run, dry_run
from smx.convert.dissolving import dissolve
from smx.convert.folding import fold, next_linears
from smx.convert.modularize import ACTIVATIONS, Types, heed_activations, modularize
from smx.example_input import ExampleInput, as_arguments
from smx.fused.operators import of_choice
from smx.layers import Mixed, Selective, selectives
from smx.paper import NEURON, PAPER, PAPER_POOL, TEMPERATURE

ACTIVATION_MODULES: Types = tuple(ACTIVATIONS.values())
"""The modules that `select` replaces: PyTorch's elementwise activations."""


def select(
    module: nn.Module,
    pool: Iterable[str | Activation] = PAPER_POOL,
    *,
    example_input: ExampleInput | None = None,
    temperature: float = TEMPERATURE,
    selection: str = PAPER,
    per: int | str = NEURON,
    types: Types = ACTIVATION_MODULES,
) -> nn.Module:
    """Return a copy of `module` in which every activation is a `Selective`, with one choice for each channel.

    1. Each use of an activation gets its own `Selective`. A module that is used once is replaced under its path. Where
       a forward calls functions (`F.relu(x)`, `x.sigmoid_()`) or one module several times, torch.fx rewrites it, see
       `smx.convert.modularize.modularize`. A block that is called several times keeps one set of neurons. Everything
       else of the network stays; an activation that is never called stays, too.
    2. The channels are those of the last layer before the activation that has channels: Linear and LayerNorm on the
       last axis, Conv, BatchNorm and the like on axis 1. The order is that of a run on `example_input`; without one,
       that of the traced forwards, or of the definitions. Where Linear layers gate images, give an example.
    3. With an example the network runs in `eval()` before and after it is rewritten, and the outputs must agree. Use
       random values, since zeros hide differences.
    4. No activation is in place any more. Where the same forward reads an overwritten input again, it now reads the
       result. Only an example finds other readers; without one, a warning names the activations that were in place.
    5. A forward is not rewritten if its course depends on data, on whether optional arguments are given, or on
       something that torch.fx can't see. Its modules are replaced nevertheless. A warning names its functions, which
       stay, and the modules that it calls several times, which get one `Selective`.
    6. Numbers and flags that a rewritten forward reads from its module (`self.p` in `F.dropout(x, self.p)`) keep the
       values that they had at `select`.

    Args:
        module: any module; it stays as it is.
        pool: names or activations.
        example_input: a tensor or array, or a tuple of the arguments, for the dry run. None: there is no dry run.
        temperature: tau of eq. 2.
        selection: the rule by which the neurons choose, `paper` or `matched`; see `smx.Selective`.
        per: what makes one choice: `neuron`, `layer`, or a number of neurons side by side; see `smx.Selective`.
        types: the module types to replace; without `nn.Sigmoid`, for example, the Sigmoid of a gate stays. A function
            counts as its module: `F.relu` as `nn.ReLU`. Your own types are allowed.

    Raises:
        ValueError: there is nothing to replace, the selection or `per` is unknown, the channels of an activation can't
            be told, or the rewritten network gives other outputs on the example.
    """
    resolved = resolve_pool(pool)
    original, module = module, copy.deepcopy(module)
    reasons, overwrote = modularize(module, types)
    if example_input is None:
        channels = channels_by_definition(module, types)
        unchanged = {path: {"calls such as F.relu(x) in it stay; example_input= finds them"} for path in reasons}
    else:
        arguments = as_arguments(example_input)
        expected = dry_run(original, arguments)
        channels, unchanged, outputs = channels_by_run(module, arguments, types)
        _check_same(outputs, expected)
    notes = [
        f"the forward of {path or type(module).__name__!r} can't be rewritten"
        f" ({reasons.get(path, 'torch.fx does not see all of it')}): {', '.join(sorted(what))};"
        " give each activation a module of its own (nn.ReLU)"
        for path, what in unchanged.items()
    ]
    if example_input is None and overwrote:
        notes.append(
            f"no longer in place: {', '.join(sorted(overwrote))}; give example_input= to check that nothing else reads"
            " the values that they overwrote"
        )
    activations = {path: part for path, part in module.named_modules() if isinstance(part, types) and path in channels}
    if not activations:
        raise ValueError("; ".join([f"{type(module).__name__} has no activation to replace", *notes]))
    for note in notes:
        warnings.warn(note, stacklevel=2)
    device = next((parameter.device for parameter in module.parameters()), None)
    made: dict[nn.Module, nn.Module] = {}
    for path, part in activations.items():
        known = channels[path]
        if known is None:
            reason = "no layer with channels comes before it"
            if example_input is not None:
                reason = "in the dry run its input was not of the shape (B, N, *)"
            raise ValueError(
                f"the channels of {path or type(module).__name__!r} can't be told: {reason};"
                " give example_input, or leave its type out of types"
            )
        how: dict[str, Any] = {"selection": selection, "per": per, "dim": known.dim, "device": device}
        made[part] = Selective(known.count, resolved, temperature, **how)
    return replace(module, made)


def commit(module: nn.Module, *, min_share: float = 0.0, max_groups: int = 0) -> nn.Module:
    """Return a copy of `module` in which every `Selective` is a `Mixed` with its largest logits' choice (eq. 8).

    Everything else, weights and training mode included, is kept. Of a matched layer, scale and shift of each neuron's
    choice move into the Linear after it, where the modules are a plain chain; elsewhere the `Mixed` has them. Either
    way the network computes in `eval()` what it computed before, unless small groups are dissolved.

    Args:
        module: a network of phase 1; it stays as it is.
        min_share, max_groups: limits that keep the network fast, see `smx.convert.dissolve`; training on heals it.
            `smx.convert.dissolved` says what they cost.

    Raises:
        ValueError: `module` has no `Selective`, or a limit is out of its range.
    """
    module = copy.deepcopy(module)
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
    heed_activations(module)
    return module


def _check_same(outputs: object, expected: object) -> None:
    with suppress(TypeError):  # the outputs are not tensors
        try:
            torch.testing.assert_close(outputs, expected, equal_nan=True)
        except AssertionError as error:
            raise ValueError(
                "with each activation a module of its own, not in place, the network computes something else on"
                " example_input; write its activations as modules, without inplace=True"
            ) from error
