"""On which axis the neurons of each `Selective` are, by rules that share nothing with those of `smx.select`.

Hooks see what each layer returns and what each `Selective` gets, in runs at several batch and image sizes.

1. An axis whose length differs between runs is not that of neurons: the `Selective` itself raises an error there.
2. The layer with weights that ran last before, of those whose result has the shape of the input, has its neurons on
   the last axis (Linear) or on axis 1 (convolution), and as many as its `out_features` or `out_channels`.
3. Where there is no such layer, the only axis that never differs is the one; of several, the one of the length that the
   layer before has neurons.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from smx.layers import Selective

AGREES, OPEN = "agrees", "open"


class Layer(NamedTuple):
    """A layer with weights that has run: the shape of its result, its axis of neurons, and how many they are."""

    shape: tuple[int, ...]
    axis: int
    neurons: int


class Seen(NamedTuple):
    """A call of a `Selective`: the shape of its input, and the layers that ran before, the last one first."""

    shape: tuple[int, ...]
    layers: tuple[Layer, ...]


def verdicts(net: nn.Module, inputs: Sequence[Tensor]) -> dict[str, str]:
    """Return for each `Selective`, by its path: `agrees`, `open` where the rules don't tell, or what is wrong.

    Args:
        net: run in `eval()`.
        inputs: of different shapes.

    Raises:
        ValueError: a `Selective` gets another number of neurons in one of the runs.
    """
    runs = [_seen(net, x) for x in inputs]
    found = {}
    for path, part in net.named_modules():
        if isinstance(part, Selective):
            calls = [run[path] for run in runs if path in run]
            found[path] = _verdict(part, calls) if calls else OPEN
    return found


def _verdict(part: Selective, runs: list[list[Seen]]) -> str:
    answers = [_of_call(part, calls) for calls in zip(*runs, strict=False)]
    wrong = [answer for answer in answers if answer not in (AGREES, OPEN)]
    return wrong[0] if wrong else AGREES if set(answers) == {AGREES} else OPEN


def _of_call(part: Selective, calls: Sequence[Seen]) -> str:
    shape, layers = calls[0]
    axis = part.dim % len(shape)
    lengths = [{call.shape[i] for call in calls} for i in range(len(shape))]
    for layer in layers:
        if layer.shape == shape:
            there = layer.axis % len(shape)
            same = (axis, part.num_features) == (there, layer.neurons)
            return AGREES if same else f"axis {part.dim} of {shape}, but the layer before has its neurons on {there}"
    fixed = [i for i, seen in enumerate(lengths) if len(seen) == 1]
    if len(fixed) > 1 and layers:
        fixed = [i for i in fixed if shape[i] == layers[0].neurons]
    return AGREES if fixed == [axis] else OPEN


def _seen(net: nn.Module, x: Tensor) -> dict[str, list[Seen]]:
    layers: list[Layer] = []
    found: dict[str, list[Seen]] = {}

    def returned(part: nn.Module, inputs: Any, output: Any) -> None:
        if isinstance(output, Tensor):
            axis = 1 if isinstance(part, nn.modules.conv._ConvNd) else -1
            neurons = next(getattr(part, name) for name in _SIZES if hasattr(part, name))
            layers.insert(0, Layer(tuple(output.shape), axis, neurons))

    def given(path: str, part: nn.Module, inputs: Any) -> None:
        found.setdefault(path, []).append(Seen(tuple(inputs[0].shape), tuple(layers)))

    handles = []
    for path, part in net.named_modules():
        if isinstance(part, nn.Linear | nn.modules.conv._ConvNd) or type(part).__name__ == "Conv1D":
            handles.append(part.register_forward_hook(returned))
        elif isinstance(part, Selective):
            handles.append(part.register_forward_pre_hook(partial(given, path)))
    try:
        with torch.no_grad():
            net.eval()(x)
    finally:
        for handle in handles:
            handle.remove()
    return found


_SIZES = ("out_features", "out_channels", "nf")
"""How layers name the number of their neurons; the last one is that of the Conv1D of transformers."""
