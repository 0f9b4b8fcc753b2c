"""From a plain module to phase 1 (`select`), and from phase 1 to phase 2 (`commit`)."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterable, Mapping
from contextlib import suppress

import torch
from torch import nn

from smx.activations import Activation, resolve_pool
from smx.convert.channels import ExampleInput, channels_by_definition, channels_by_run, dry_run
from smx.convert.rewriting import ACTIVATIONS, Types, heed_activations, separate
from smx.layers import Mixed, Selective
from smx.paper import PAPER_POOL, TEMPERATURE

ACTIVATION_MODULES: Types = tuple(ACTIVATIONS.values())
"""What `select` replaces, modules and functions: PyTorch's elementwise activations."""


def select(
    module: nn.Module,
    pool: Iterable[str | Activation] = PAPER_POOL,
    *,
    example_input: ExampleInput | None = None,
    temperature: float = TEMPERATURE,
    types: Types = ACTIVATION_MODULES,
) -> nn.Module:
    """Return a copy of `module` in which every activation is a `Selective`, one choice a channel.

    Each use of an activation gets its own. A module that is used once is replaced in its place. Where a forward calls
    functions (`F.relu(x)`, `torch.tanh(x)`, `x.sigmoid_()`) or the same module several times, torch.fx writes this
    forward anew, with a `Selective` for each call: the first use of `act` keeps that path, the next ones are `act_1`,
    `act_2`, and functions are called `relu`, `relu_1`, ..., parts of the module whose forward calls them. A block that
    is itself called several times keeps one set of neurons, as it keeps one set of weights. Classes, paths,
    `state_dict()` keys, modes, devices, dtypes and hooks of everything else stay. See `smx.convert.rewriting.separate`.

    The channels of an activation are those of the last layer before it that has channels (Linear, Conv, BatchNorm,
    LayerNorm, ...): before it in execution when `example_input` is given, otherwise before it in the forwards, and
    where these can't be traced, in the order in which the module's parts were defined. Linear and LayerNorm have them
    on the last axis, the others on axis 1; so where Linear layers gate images (squeeze and excitation), it takes an
    example to tell. With an `example_input` the network is run on it in `eval()`, before and after the forwards were
    rewritten, and both must agree; take random values, as zeros show little.

    No activation is in place any more. Where the overwritten input is used again in the same forward, its result is
    taken instead; that someone else looks at it (the forward that calls the block, a view of it) only the example
    tells, and without one a warning says which activations were in place. Numbers and flags that a rewritten forward
    reads from its module (`self.p` in `F.dropout(x, self.p)`) keep the values that they had at `select`.

    An activation that is never called stays. A forward whose course depends on its data, on whether optional arguments
    are given, or on what torch.fx can't see, is not rewritten: the modules in it are replaced all the same, and a
    warning tells of its functions, which stay, and of modules that it calls several times, which get one `Selective`.

    Args:
        module: any module.
        pool: names or activations.
        example_input: a tensor, or a tuple of the arguments, for the dry run.
        temperature: tau of eq. 2.
        types: the module types to replace; narrow it to keep, for example, the Sigmoid of a gate. A function counts as
            the module that computes it: `F.relu` as `nn.ReLU`. Types of your own may stand in it.

    Raises:
        ValueError: there is nothing to replace, the channels of an activation can't be told, or the rewritten network
            gives other outputs on the example.
    """
    resolved = resolve_pool(pool)
    original, module = module, copy.deepcopy(module)
    reasons, overwrote = separate(module, types)
    if example_input is None:
        channels = channels_by_definition(module, types)
        left = {path: {"calls such as F.relu(x) in it stay; example_input= tells if there are any"} for path in reasons}
    else:
        expected = dry_run(original, example_input)
        channels, left, outputs = channels_by_run(module, example_input, types)
        _check_same(outputs, expected)
    notes = [
        f"the forward of {path or type(module).__name__!r} can't be rewritten"
        f" ({reasons.get(path, 'torch.fx does not see all of it')}): {', '.join(sorted(what))};"
        " give each activation a module of its own (nn.ReLU)"
        for path, what in left.items()
    ]
    if example_input is None and overwrote:
        notes.append(
            f"no longer in place: {', '.join(sorted(overwrote))}; pass example_input= to check that nothing else looked"
            " at what was overwritten"
        )
    found = {path: part for path, part in module.named_modules() if isinstance(part, types) and path in channels}
    if not found:
        raise ValueError("; ".join([f"{type(module).__name__} has no activation to replace", *notes]))
    for note in notes:
        warnings.warn(note, stacklevel=2)
    device = next((parameter.device for parameter in module.parameters()), None)
    made: dict[nn.Module, nn.Module] = {}
    for path, part in found.items():
        seen = channels[path]
        if seen is None:
            reason = (
                "no layer with channels stands before it"
                if example_input is None
                else "the dry run gave it no input of shape (B, N, *)"
            )
            raise ValueError(
                f"the channels of {path or type(module).__name__!r} can't be told: {reason};"
                " pass example_input, or narrow types"
            )
        made[part] = Selective(seen.count, resolved, temperature, dim=seen.dim, device=device)
    return replace(module, made)


def commit(module: nn.Module) -> nn.Module:
    """Return a copy of `module` in which every `Selective` is a `Mixed` with its largest logits' choice (eq. 8).

    Everything else, weights and training mode included, is kept.

    Raises:
        ValueError: `module` has no `Selective`.
    """
    module = copy.deepcopy(module)
    layers = [part for part in module.modules() if isinstance(part, Selective)]
    if not layers:
        raise ValueError(f"{type(module).__name__} has no Selective layer to commit; smx.select makes them")
    return replace(module, {layer: Mixed(layer.choice, layer.pool, dim=layer.dim) for layer in layers})


def replace(module: nn.Module, made: Mapping[nn.Module, nn.Module]) -> nn.Module:
    """Put new parts in the places of old ones, in the same mode, and return the module; it is changed in place."""
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
    with suppress(TypeError):  # outputs that are not made of tensors
        try:
            torch.testing.assert_close(outputs, expected, equal_nan=True)
        except AssertionError as error:
            raise ValueError(
                "with each activation a module of its own, not in place, the network computes something else on"
                " example_input; write its activations as modules, without inplace=True"
            ) from error
