"""The metadata of an exported file: one key of the ONNX model's `metadata_props` for each field, which viewers show."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple, get_type_hints

from smx.errors import InputError, one_line
from smx.schema import Axis, Count, Index, Number, Pool, Positive, Shape, Text, checked, from_json

PREFIX = "smx."
VERSION = 1
"""Of the entries' layout, as `smx.format`. A later release may write a higher one."""


class Kind(NamedTuple):
    """An activation, and how a neuron's values in the graph relate to PyTorch's.

    With z, h the pre-activation and the activation in PyTorch and z', h' the values in the graph,
    z' = inner z + offset and h = scale h' + shift.
    """

    activation: Text
    inner: Number
    scale: Number
    shift: Number
    offset: Number = 0.0  # older files have none


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """Where a mixed layer's neurons are found in the graph, and how their values there relate to PyTorch's.

    Attributes:
        z, h: names of the values.
        neurons: for each position along the axis, which neuron of PyTorch stands there.
        kinds: as often as they differ.
        kind: for each position, which of those it is.
    """

    z: Text
    h: Text
    neurons: tuple[Index, ...]
    kinds: tuple[Kind, ...]
    kind: tuple[Index, ...]

    def __post_init__(self) -> None:
        if len(self.kind) != len(self.neurons) or max(self.kind, default=-1) >= len(self.kinds):
            raise ValueError("provenance needs one of its kinds for each neuron")
        if sorted(self.neurons) != list(range(len(self.neurons))):
            raise ValueError("provenance needs each neuron once")


@dataclass(frozen=True, kw_only=True)
class LayerInfo:
    """A mixed layer.

    Attributes:
        name: its module path in PyTorch.
        axis: the axis of its neurons.
        groups: how many neurons have each activation; no empty groups.
        provenance: where it is in the graph; None where that was not noted.
    """

    name: Text
    axis: Axis
    groups: dict[Text, Count]
    provenance: Provenance | None = None

    @property
    def neurons(self) -> int:
        """The neurons of all groups."""
        return sum(self.groups.values())


@dataclass(frozen=True, kw_only=True)
class ModelInfo:
    """The metadata of an exported model.

    Attributes:
        smx_version: of the exporter.
        architecture: for people, `784-512-10` or the module's class.
        layout: `scatter`, or another of the exporter's layouts.
        chosen: for the layout `fastest`, what was chosen and why, for people.
        pool: names of the candidate activations.
        layers: the mixed layers, in the order of the graph.
        tolerance: the rule that the file met when it was exported, `atol` and `rtol` of
            `smx.runtime.parity.check.check_parity`; the largest `scale` of atol, and `max_abs`, the largest difference
            from PyTorch, at that time.
        class_names: one for each output, or empty.
        sample_shape: the shape of one raw example, or empty when it is not known.
        maximum: raw values are divided by it before they go in, or in the graph if it takes uint8.
        precision: of the weights and the arithmetic: float32, float16 or int8.
    """

    smx_version: Text
    architecture: Text
    layout: Text
    pool: Pool
    layers: tuple[LayerInfo, ...]
    tolerance: dict[Text, Number]
    class_names: tuple[Text, ...] = ()
    sample_shape: Shape = ()
    maximum: Positive = 1.0
    precision: Text = "float32"
    chosen: tuple[Text, ...] = ()

    def to_properties(self) -> dict[str, str]:
        """Write the entries of the ONNX model's `metadata_props`; values are JSON, but for plain words."""
        return {PREFIX + "format": str(VERSION)} | {
            PREFIX + key: value
            if isinstance(value, str)
            else json.dumps(value, ensure_ascii=False, separators=(",", ":"))
            for key, value in asdict(self).items()
        }

    @classmethod
    def from_properties(cls, properties: Mapping[str, str]) -> ModelInfo | None:
        """Read what `to_properties` wrote; None for a model that another tool wrote.

        Raises:
            InputError: the entries are there but damaged, or of a later format.
        """
        if PREFIX + "smx_version" not in properties:
            return None
        if (version := properties.get(PREFIX + "format", "1")) != str(VERSION):
            said = f"format version {one_line(version)[:20]}, this smx reads {VERSION}"
            raise InputError(f"the model's smx metadata has {said}; upgrade smartmixed")
        given = {PREFIX + "chosen": "[]", **properties}  # files of an older version have no such entry
        values: dict[str, Any] = {}
        for name, kind in get_type_hints(cls, include_extras=True).items():
            try:
                text = given[PREFIX + name]
                # Words are no JSON, so that viewers show them as they are.
                values[name] = checked(text, kind) if kind is Text else from_json(text, kind)
            except (KeyError, InputError) as error:
                reason = "it is missing" if isinstance(error, KeyError) else error
                raise InputError(
                    f"the model's smx metadata is damaged ({PREFIX}{name}: {reason}); export it again"
                ) from error
        return cls(**values)
