"""What a network is made of, as plain values: enough to build it again, with any activations in its places."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import nn

from smx import convert, factory
from smx.arrays import image_shape
from smx.errors import InputError
from smx.layers import Selective
from smx.models import cnn, mlp

MLP, CNN, FACTORY = "mlp", "cnn", "factory"
CHANNELS = (16, 32, 64)
"""Of the blocks of a `cnn`."""


class Place(NamedTuple):
    """Where an activation stands.

    Attributes:
        name: module path.
        channels: how many, each of which can have an activation of its own.
        dim: their axis.
    """

    name: str
    channels: int
    dim: int = 1


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """A network without its weights and activations.

    Attributes:
        kind: `mlp`, `cnn`, or `factory` for a user's own.
        input_shape: of one example as the network takes it: (F,), or (C, H, W) of an image.
        num_classes: its outputs.
        widths: neurons of each hidden layer of an mlp, channels of each block of a cnn.
        name: `module:factory` of a user's own.
    """

    kind: str
    input_shape: tuple[int, ...]
    num_classes: int
    widths: tuple[int, ...] = ()
    name: str = ""

    def build(self, activation: Callable[[Place], nn.Module]) -> nn.Module:
        """Return the network with fresh weights, (B, *input_shape) -> logits (B, num_classes).

        Args:
            activation: makes what stands in each place: a `Selective`, a `Mixed`, ...

        Raises:
            InputError: a user's own network can't be made; see `smx.factory`.
            ValueError: the kind is unknown, or does not go with the shape.
        """
        places = [Place(f"layer{i}.activation", width) for i, width in enumerate(self.widths, 1)]
        if self.kind == MLP:
            sizes = (math.prod(self.input_shape), *self.widths, self.num_classes)
            return mlp(sizes, lambda i: activation(places[i - 1]))
        if self.kind == CNN:
            return cnn(self.input_shape, self.num_classes, self.widths, lambda i: activation(places[i - 1]))
        if self.kind == FACTORY:
            plain = factory.make_network(self.name, self.input_shape, self.num_classes)
            try:
                network = convert.select(plain, example_input=factory.example(self.input_shape))
            except ValueError as error:
                raise InputError(f"{self.name}: {error}") from error
            return _put(network, activation)
        raise ValueError(f"{self.kind!r} is no kind of network this smx knows; upgrade smartmixed")

    def __str__(self) -> str:
        """Describe it for people: `784-512-10`, `cnn 1x28x28-16-32-64-10`, `my_network:Net 1x28x28-10`."""
        sizes = "-".join(["x".join(map(str, self.input_shape)), *map(str, self.widths), str(self.num_classes)])
        return sizes if self.kind == MLP else f"{self.name or self.kind} {sizes}"

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, for `model.pt`."""
        if self.kind == MLP:
            return {"kind": MLP, "sizes": [*self.input_shape, *self.widths, self.num_classes]}
        own = {"channels": list(self.widths)} if self.kind == CNN else {"name": self.name}
        return {"kind": self.kind, **own, "input_shape": list(self.input_shape), "num_classes": self.num_classes}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Architecture:
        """Read what `to_dict` returned.

        Raises:
            KeyError, TypeError, ValueError: it is damaged.
        """
        if values["kind"] == MLP:
            inputs, *widths, outputs = map(int, values["sizes"])
            return cls(kind=MLP, input_shape=(inputs,), num_classes=outputs, widths=tuple(widths))
        return cls(
            kind=str(values["kind"]),
            input_shape=tuple(map(int, values["input_shape"])),
            num_classes=int(values["num_classes"]),
            widths=tuple(map(int, values.get("channels", ()))),
            name=str(values.get("name", "")),
        )


def architecture_for(
    model: str, sample_shape: Sequence[int], num_classes: int, *, hidden: Sequence[int]
) -> Architecture:
    """Return the architecture that `smx train --model` means, for the examples of a data set.

    Args:
        model: `mlp`, `cnn` or `module:factory`.
        sample_shape: of one example in the data set; `smx.arrays.image_shape` says what an image becomes.
        num_classes: of the data set.
        hidden: neurons of each hidden layer of the mlp.

    Raises:
        InputError: the cnn is asked for, and the examples are no images or too small.
    """
    if model == MLP:
        inputs = (math.prod(sample_shape),)
        return Architecture(kind=MLP, input_shape=inputs, num_classes=num_classes, widths=tuple(hidden))
    shape = image_shape(sample_shape)
    if model != CNN:
        return Architecture(kind=FACTORY, input_shape=shape, num_classes=num_classes, name=model)
    smallest = 2 ** (len(CHANNELS) - 1)
    if len(shape) != 3 or min(shape[1:]) < smallest:
        raise InputError(
            f"the cnn takes images of {smallest}x{smallest} or more: examples of shape (H, W), (C, H, W), or (H, W, C)"
            f" with C of 1 or 3; got {tuple(sample_shape)}"
        )
    return Architecture(kind=CNN, input_shape=shape, num_classes=num_classes, widths=CHANNELS)


def _put(network: nn.Module, activation: Callable[[Place], nn.Module]) -> nn.Module:
    """Put an activation in the place of every `Selective`; one that is used in several places stays one."""
    layers = {name: part for name, part in network.named_modules() if isinstance(part, Selective)}
    made: dict[nn.Module, nn.Module] = {
        part: activation(Place(name, part.num_features, part.dim)) for name, part in layers.items()
    }
    return convert.replace(network, made)
