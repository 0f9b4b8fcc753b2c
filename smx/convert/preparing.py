"""From a network to a copy in which each activation is a module, and the plan of what `select` does with them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from smx.convert.hidden import reasons
from smx.convert.modularize import ACTIVATIONS, Types, modularize, name_of
from smx.convert.neurons import shown
from smx.convert.recording import Recording, Site, record, run, shapes, tensors_in
from smx.convert.source import rewrite
from smx.convert.table import UNCALLED, Plan, Row, narrowed
from smx.convert.tracing import random_numbers_back
from smx.convert.values import Value, sites
from smx.convert.variations import variations, varying
from smx.errors import reason
from smx.example_input import as_arguments, infer
from smx.wrappers import copied, unwrapped

UNSEEN = "the run does not show its values, as within torch.vmap"


def prepare(
    module: nn.Module, example_input: Any, types: Types, include: Any, exclude: Any, dim: Mapping[str, int] | None
) -> tuple[nn.Module, Plan]:
    """Return a copy of a module in which each activation has a module of its own, and the plan; see `select`.

    Raises:
        ValueError: see `select`.
    """
    if not isinstance(dim, Mapping | None):
        raise ValueError(f"dim gives the axis for the path of an activation, like {{'1': -1}}, got {dim!r}")
    types = (types,) if isinstance(types, type) else tuple(types)
    if bad := [each for each in types if not isinstance(each, type)]:
        raise ValueError(f"types are classes of modules that are activations, like torch.nn.ReLU, got {bad[0]!r}")
    wrapped = unwrapped(module, levels=4)
    tensors = (*wrapped.named_parameters(), *wrapped.named_buffers())
    if lazy := [name for name, tensor in tensors if is_lazy(tensor)]:
        raise ValueError(f"{type(module).__name__} has {lazy[0]!r}, which its first run makes; run it once first")
    original = copied(wrapped, wrapped.parameters())
    module = copied(original)
    arguments = _inferred(module) if example_input is None else as_arguments(example_input, module)
    try:
        expected = run(original, arguments)
    except Exception as error:  # whatever a forward may raise
        given = "the input that was inferred; give example_input" if example_input is None else "example_input"
        raise ValueError(f"{type(module).__name__} can't run on {given} ({reason(error)})") from error
    written = {path for path, part in module.named_modules() if isinstance(part, types)}
    refusals, formulas = modularize(module, types)
    recording = _recorded(module, arguments, types)
    stay: dict[tuple[str, str], str] = {}
    if any(site.shared or not site.module for site in recording.sites.values()):
        unseen = {site.caller: "torch.fx does not see all of it" for site in recording.sites.values()}
        stay = rewrite(module, recording.sites, unseen | refusals)
        recording = _recorded(module, arguments, types)
    usual = _same_shapes(module, arguments, types, expected)
    varied: dict[str, set[int]] = {}
    weights = next(module.parameters(), None) is not None
    for others, outputs in variations(arguments, lambda x: run(original, x), lengths=weights):
        for path, sizes in _same_shapes(module, others, types, outputs).items():
            varied.setdefault(path, set()).update(varying(usual[path], sizes))
    rows = _rows(recording, (written, formulas), stay, varied, dict(dim or {}), guessed=example_input is None)
    rows += [
        Row(path, "function", site.activation, None, None, UNSEEN, UNSEEN)
        for path, site in recording.sites.items()
        if all(row.path != path for row in rows)
    ]
    modules = dict(module.named_modules())
    rows += [
        Row(path, "module", name_of(part), None, None, UNCALLED, UNCALLED)
        for path, part in modules.items()
        if isinstance(part, types) and path not in recording.sites and not _within(path, recording.sites)
    ]
    return module, Plan(narrowed(rows, modules, include, exclude))


def _recorded(module: nn.Module, arguments: tuple[Any, ...], types: Types) -> Recording:
    try:
        return record(module, arguments, types)
    except Exception as error:  # whatever PyTorch may raise where it is watched
        line = (str(error).splitlines() or [""])[0]
        raise ValueError(
            f"{type(module).__name__} runs on example_input, but its operators can't be recorded"
            f" ({type(error).__name__}: {line})"
        ) from error


def _rows(
    recording: Recording,
    how: tuple[set[str], set[str]],
    stay: Mapping[tuple[str, str], str],
    varied: Mapping[str, set[int]],
    dims: dict[str, int],
    guessed: bool,
) -> list[Row]:
    if unknown := [path for path in dims if path not in recording.sites]:
        raise ValueError(f"dim names no activation of the network: {unknown[0]!r}; smx.plan lists their paths")
    left = reasons(recording.graph)
    rows = []
    for path, calls in sites(recording.graph.values).items():
        site = recording.sites[path]
        zs = [h.inputs[0] for h in calls]
        found = _neurons(path, zs, varied.get(path, set()), dims.get(path), guessed)
        count, axis, open_ = (None, None, found) if isinstance(found, str) else (*found, None)
        stays = None if site.module else _stays(site, stay)
        obstacle = stays or open_
        call = "module" if path in how[0] else "formula" if path in how[1] else "function"
        call += ", shared" if site.shared else ""
        rows.append(Row(path, call, site.activation, count, axis, left.get(path) or obstacle, obstacle))
    return rows


def _stays(site: Site, stay: Mapping[tuple[str, str], str]) -> str:
    """Say why a call of a function can't be replaced."""
    reason = stay.get((site.caller, site.activation), "its arguments are parameters")
    own = ACTIVATIONS[site.activation].__name__
    return f"its forward can't be rewritten ({reason}); give it a module of its own (nn.{own})"


def _neurons(path: str, zs: list[Value], varied: set[int], dim: int | None, guessed: bool) -> tuple[int, int] | str:
    """Return how many neurons an activation has, and on which axis; or why that is open."""
    found: list[tuple[int, int]] = []
    for z in zs:
        rank = len(z.shape)
        if dim is not None and not -rank <= dim < rank:
            raise ValueError(f"dim of {path!r} must be an axis of its values {z.shape}, got {dim}")
        axis = dim if dim is not None else _axis(z, varied, guessed)
        if axis is None:
            layer = "" if z.neurons else ", and no layer with weights tells it"
            return f"the axis of its neurons is open in {z.shape}{layer}; say dim={{{path!r}: ...}}"
        found.append((z.shape[axis], axis))
    for other in found[1:]:
        if other != found[0]:
            return f"it is used for inputs of {found[0][0]} and of {other[0]} neurons; give each use its own module"
    return found[0]


def _axis(z: Value, varied: set[int], guessed: bool) -> int | None:
    """Return the axis of the neurons: what the operators say; else the only one that does not vary."""
    if len(z.shape) < 2:
        return None
    if z.neurons is not None:
        known = z.neurons.axis % len(z.shape) not in varied and z.shape[z.neurons.axis] == z.neurons.size
        return z.neurons.axis if known else None
    rest = [axis for axis in range(len(z.shape)) if axis not in varied]
    return shown(rest[0], len(z.shape)) if len(rest) == 1 and not guessed else None


def _inferred(module: nn.Module) -> tuple[Any, ...]:
    """Return an input that a module takes, with random values and a batch of 2."""
    with random_numbers_back():
        x = infer(module)
    values = torch.rand(x.shape, generator=torch.Generator().manual_seed(0))[:2]
    device = next((parameter.device for parameter in module.parameters()), None)
    return (values.to(device, x.dtype),)


def _within(path: str, known: Mapping[str, Any]) -> bool:
    return any(path.startswith(f"{other}.") for other in known)


def _same_shapes(
    module: nn.Module, arguments: tuple[Any, ...], types: Types, expected: object
) -> dict[str, list[torch.Size]]:
    """Return the shapes of the inputs of each activation; make sure that the outputs are those of the given network."""
    try:
        seen, outputs = shapes(module, arguments, types)
        torch.testing.assert_close(list(tensors_in(outputs)), list(tensors_in(expected)), equal_nan=True)
    except Exception as error:  # whatever a forward may raise for a shape that tracing took for a constant
        given = ", ".join(str(tuple(x.shape)) for x in tensors_in(arguments))
        raise ValueError(
            "with each activation a module of its own, not in place, the network computes something else on"
            f" example_input, or on one like it, of shape {given}; write its activations as modules, without"
            " inplace=True"
        ) from error
    return seen
