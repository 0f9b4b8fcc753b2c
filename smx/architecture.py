"""What a network is made of, as plain values: enough to build it again without its weights."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from textwrap import shorten
from typing import Annotated, Any, Literal

import msgspec
import torch
from msgspec import Meta
from torch import Tensor, nn

from smx import convert, factory
from smx.activations import Activation
from smx.arrays import image_shape
from smx.errors import InputError, one_line
from smx.layers import Selective
from smx.limits import LAYERS, NEURONS, VALUES
from smx.models import cnn, mlp
from smx.paper import TEMPERATURE
from smx.schema import Shape, Text, checked

MLP, CNN, FACTORY, PROGRAM = "mlp", "cnn", "factory", "program"
CHANNELS = (16, 32, 64)
"""The channels of the blocks of a `cnn`."""
Width = Annotated[int, Meta(ge=1, le=NEURONS)]
"""Neurons of a layer."""


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """A network without its weights.

    Attributes:
        kind: `mlp`, `cnn`, `factory` for a user's own that `smx train` trains, or `program` of `smx.save`.
        input_shape: the shape of one example as the network takes it: (F,), or (C, H, W) of an image.
        num_classes: the number of outputs.
        widths: neurons of each hidden layer of an mlp, channels of each block of a cnn.
        name: `module:factory` of a user's own, or the class of a program.
        dtype: of the examples.
        program: see `smx.program`; with `layers`, the arguments of each `Mixed` and `Selective` by path.
    """

    kind: str
    input_shape: tuple[int, ...]
    num_classes: int
    widths: tuple[int, ...] = ()
    name: str = ""
    dtype: str = "float32"
    program: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if math.prod(self.input_shape) > VALUES:
            shape = "x".join(map(str, self.input_shape))
            raise InputError(f"an example of a network may have {VALUES} values at most, got {shape}")

    def parameters(self) -> int:
        """Return how many parameters `build` makes, without their memory; 0 for code of the user's and programs."""
        if self.kind not in (MLP, CNN):
            return 0
        with torch.device("meta"):
            return sum(parameter.numel() for parameter in self.build().parameters())

    def build(self) -> nn.Module:
        """Return the ordinary network, with fresh weights: (B, *input_shape) -> logits (B, num_classes).

        Raises:
            InputError: a user's own network can't be made (see `smx.factory`), or a cnn of this shape.
            ValueError: a program, which is no network with fresh weights.
        """
        if self.kind == MLP:
            return mlp((math.prod(self.input_shape), *self.widths, self.num_classes))
        if self.kind == CNN:
            return cnn(self.input_shape, self.num_classes, self.widths)
        if self.kind == FACTORY:
            return factory.make_network(self.name, self.input_shape, self.num_classes)
        raise ValueError(f"{self.kind!r} is no kind of network this smx knows; upgrade smartmixed")

    def selective(
        self, pool: Iterable[str | Activation], temperature: float = TEMPERATURE, **how: float | str
    ) -> nn.Module:
        """Return the network of phase 1, with fresh weights: every activation is a `Selective`.

        `how` neurons choose are the `selection`, `per`, `start` and `keep` of `smx.select`.

        Raises:
            InputError, ValueError: as for `build`; or a user's network has no activation that can be replaced.
        """
        ours = self.kind != FACTORY
        with torch.random.fork_rng(devices=(), enabled=ours):
            network = self._select(pool, temperature, **how)
        for part in network.modules():  # ours draw each layer's logits after its weights, as in every release
            if ours or isinstance(part, Selective):
                getattr(part, "reset_parameters", lambda: None)()
        return network

    def mixed(self, pool: Iterable[str | Activation]) -> nn.Module:
        """Return the network of phase 2, with fresh weights and arbitrary choices; a pool of one makes a baseline.

        Raises:
            InputError, ValueError: as for `selective`.
        """
        return convert.commit(self._select(pool, TEMPERATURE))

    def _select(self, pool: Iterable[str | Activation], temperature: float, **how: Any) -> nn.Module:
        network, example = self.build(), factory.example(self.input_shape)
        try:
            return convert.select(network, pool, example_input=example, temperature=temperature, **how)
        except ValueError as error:
            raise InputError(f"{self.name or self.kind}: {error}") from error

    def load(self, network: nn.Module, state: Mapping[str, Tensor]) -> None:
        """Load a state dict into a network that `selective` or `mixed` made.

        Raises:
            InputError: it does not fit, because the user's own network has changed.
            ValueError, RuntimeError: it does not fit.
        """
        try:
            network.load_state_dict(state)
        except (ValueError, RuntimeError) as error:
            if self.kind != FACTORY:
                raise
            reason = shorten(one_line(error), 200)
            raise InputError(
                f"{self.name} is no longer the network that was trained; bring that back ({reason})"
            ) from error

    def __str__(self) -> str:
        """Describe it for people: `784-512-10`, `cnn 1x28x28-16-32-64-10`, `my_network:Net 1x28x28-10`."""
        sizes = "-".join(["x".join(map(str, self.input_shape)), *map(str, self.widths), str(self.num_classes)])
        return sizes if self.kind == MLP else f"{self.name or self.kind} {sizes}"

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, for `model.pt`."""
        if self.kind == MLP:
            return {"kind": MLP, "sizes": [*self.input_shape, *self.widths, self.num_classes]}
        own: dict[str, Any] = {"channels": list(self.widths)} if self.kind == CNN else {"name": self.name}
        own |= {"dtype": self.dtype, "program": self.program} if self.kind == PROGRAM else {}
        return {"kind": self.kind, **own, "input_shape": list(self.input_shape), "num_classes": self.num_classes}

    @classmethod
    def from_dict(cls, values: object) -> Architecture:
        """Read what `to_dict` returned.

        Raises:
            InputError: it is damaged, or of a kind that only a later smx knows.
        """
        kind: _Kind = checked(values, _Kinds)
        return kind.architecture()


class _Kind(msgspec.Struct, tag_field="kind", frozen=True):
    """A kind of network as it stands in a file."""

    def architecture(self) -> Architecture:
        own = msgspec.structs.asdict(self)
        own["widths"] = own.pop("channels", ())
        return Architecture(kind=str(self.__struct_config__.tag), **own)


class _Mlp(_Kind, tag=MLP, frozen=True):
    sizes: Annotated[tuple[Annotated[int, Meta(ge=1, le=VALUES)], ...], Meta(min_length=2, max_length=LAYERS + 2)]

    def architecture(self) -> Architecture:
        inputs, *widths, outputs = self.sizes
        checked([*widths, outputs], list[Width])
        return Architecture(kind=MLP, input_shape=(inputs,), num_classes=outputs, widths=tuple(widths))


class _Cnn(_Kind, tag=CNN, frozen=True):
    input_shape: Shape
    num_classes: Width
    channels: Annotated[tuple[Width, ...], Meta(min_length=1, max_length=LAYERS)]


class _Factory(_Kind, tag=FACTORY, frozen=True):
    input_shape: Shape
    num_classes: Width
    name: Text


class _Program(_Kind, tag=PROGRAM, frozen=True):
    input_shape: Shape
    num_classes: Annotated[int, Meta(ge=1, le=VALUES)]
    name: Text
    dtype: Literal["float32", "bool", "uint8", "int8", "int16", "int32", "int64"]
    program: dict[str, Any]


_Kinds: Any = _Mlp | _Cnn | _Factory | _Program


def architecture_for(
    model: str, sample_shape: Sequence[int], num_classes: int, *, hidden: Sequence[int]
) -> Architecture:
    """Return the architecture that `smx train --model` means, for the examples of a data set.

    `smx.arrays.image_shape` says what an image becomes; `hidden` are the neurons of each hidden layer of an mlp.
    """
    if model == MLP:
        inputs = (math.prod(sample_shape),)
        return Architecture(kind=MLP, input_shape=inputs, num_classes=num_classes, widths=tuple(hidden))
    shape = image_shape(sample_shape)
    if model != CNN:
        return Architecture(kind=FACTORY, input_shape=shape, num_classes=num_classes, name=model)
    return Architecture(kind=CNN, input_shape=shape, num_classes=num_classes, widths=CHANNELS)
