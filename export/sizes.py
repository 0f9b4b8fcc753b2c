"""Axes beyond the batch that a file takes in any length, and examples of other lengths."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from smx.calling import Flat, evaluating
from smx.errors import InputError, one_line
from smx.export.places import place_of

BATCH = "batch"

Dynamic = Mapping[str, Mapping[int, str]]
"""For inputs, by their names, the names of the axes that are dynamic: `{"x": {1: "time"}}`."""

Axes = tuple[dict[int, str], ...]
"""The same for each input, with axes that are not negative."""


def read(dynamic: Dynamic, flat: Flat, batch: int | None) -> Axes:
    """Return the dynamic axes of each input of a network.

    Args:
        dynamic: an input may have its name in the file, or that of the forward's parameter.
        flat: with an example.
        batch: the fixed batch size of the file; None makes axis 0 dynamic, too.

    Raises:
        InputError: an unknown input or axis; a name that is none; or axes of one name that differ in the example.
    """
    if not isinstance(dynamic, Mapping) or not all(isinstance(axes, Mapping) for axes in dynamic.values()):
        raise InputError(f'dynamic names axes by input, as {{"x": {{1: "time"}}}}, got {dynamic!r:.100}')
    places = flat.places
    found: Axes = tuple({} if batch else {0: BATCH} for _ in flat.example)
    lengths: dict[str, int] = {}
    for key, axes in dynamic.items():
        if key not in places:
            raise InputError(f"dynamic names an unknown input {key!r}; known are {', '.join(places)}")
        x = flat.example[places[key]]
        for axis, name in axes.items():
            if not isinstance(axis, int) or not -x.dim() <= axis < x.dim():
                raise InputError(f"dynamic names axis {axis} of {key}, whose shape is {tuple(x.shape)}")
            if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z_]\w*", name):
                raise InputError(f"an axis needs a plain name such as 'time', got {name!r} for axis {axis} of {key}")
            if (axis % x.dim() == 0) != (name == BATCH):
                raise InputError(f"axis 0 is the batch, and no other axis is; got {name!r} for axis {axis} of {key}")
            if name == BATCH:
                if batch:
                    raise InputError(f"the batch is fixed to {batch}; leave out either that, or the batch in dynamic")
                continue
            length = x.shape[axis]
            if lengths.setdefault(name, length) != length:
                raise InputError(f"axes of one name have one length; {name} is {lengths[name]} and {length}")
            if (other := found[places[key]].setdefault(axis % x.dim(), name)) != name:
                raise InputError(f"axis {axis % x.dim()} of {key} has two names, {other} and {name}")
    return found


def others(flat: Flat, example: tuple[Tensor, ...], axes: Axes) -> list[tuple[str, tuple[Tensor, ...]]]:
    """Return examples of other lengths: for each name of an axis two, or one where the network takes no second.

    Args:
        flat: is run in `eval()`, and left in the mode that it is in.
        example: a tensor (B, *) for each input.
        axes: see `read`.

    Raises:
        InputError: the network takes no other length.
    """
    found = []
    with evaluating(flat):
        for name in dict.fromkeys(name for own in axes for name in own.values() if name != BATCH):
            key, axis, length = next(
                (key, axis, x.shape[axis])
                for key, x, own in zip(flat.names, example, axes, strict=True)
                for axis in own
                if own[axis] == name
            )
            tried = [_first_taken(flat, example, axes, name, sizes) for sizes in _candidates(length)]
            taken = [changed for changed in tried if not isinstance(changed, str)]
            if not taken:
                raise InputError(
                    f"{type(flat.module).__name__} takes {name}, axis {axis} of {key}, in the length {length} alone:"
                    f" {tried[0]}; leave it out of dynamic, or let the network take any length there (pooling before a"
                    " Linear, positions that are computed); axes that change together need one name"
                )
            found += taken
    return found


def _first_taken(
    flat: Flat, example: tuple[Tensor, ...], axes: Axes, name: str, sizes: Sequence[int]
) -> tuple[str, tuple[Tensor, ...]] | str:
    """Return the example in the first of some lengths of an axis that the network takes, or why it takes not even one.

    The reason is that of the first length.
    """
    problem = ""
    for size in sizes:
        changed = of_length(example, axes, name, size)
        try:
            with torch.no_grad():
                flat(*changed)
        except Exception as error:  # whatever a forward may raise for an input that does not fit
            problem = problem or f"{one_line(error)[:160]} {place_of(error, flat)}".rstrip()
        else:
            return f"example, {name} {size}", changed
    return problem


def of_length(example: Sequence[Tensor], axes: Axes, name: str, size: int) -> tuple[Tensor, ...]:
    """Shorten all axes of a name, or lengthen them by starting again with their first entry."""
    changed = []
    for x, own in zip(example, axes, strict=True):
        for axis in (axis for axis in own if own[axis] == name):
            x = x.index_select(axis, torch.arange(size, device=x.device) % x.shape[axis])
        changed.append(x)
    return tuple(changed)


def longer(example: tuple[Tensor, ...], axes: Axes) -> tuple[Tensor, ...]:
    """Return an example in which no dynamic axis has the length 1, which PyTorch's exporter takes for a constant."""
    for x, own in zip(example, axes, strict=True):
        for axis, name in own.items():
            if axis and x.shape[axis] == 1:
                example = of_length(example, axes, name, 2)
    return example


def _candidates(length: int) -> Iterator[list[int]]:
    """Return greater lengths, and smaller ones from 2 on, those first that differ most.

    A network that halves its input several times has as many positions for the next lengths as for this one, so that
    they would not show that the file has fixed the number.
    """
    steps = (32, 16, 8, 4, 2, 1)
    yield [2 * length, *(length + step for step in steps)]
    yield [size for size in dict.fromkeys([length // 2, *(length - step for step in steps)]) if size > 1]
