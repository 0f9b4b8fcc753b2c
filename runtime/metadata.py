"""What an exported file says of itself, in the ONNX model's metadata: one key a field, so that viewers show it well."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from smx.errors import InputError

PREFIX = "smx."


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """Where a mixed layer's neurons are found in the graph, and how their values there relate to PyTorch's.

    With z, h the pre-activation and the activation in PyTorch and z', h' the values in the graph, z' = inner z and
    h = scale h' + shift.

    Attributes:
        z, h: names of the values.
        neurons: for each position along the axis, which neuron of PyTorch stands there.
        kinds: (activation, inner, scale, shift), as often as they differ.
        kind: for each position, which of those it is.
    """

    z: str
    h: str
    neurons: tuple[int, ...]
    kinds: tuple[tuple[str, float, float, float], ...]
    kind: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class LayerInfo:
    """A mixed layer.

    Attributes:
        name: its module path in PyTorch.
        axis: the axis of its neurons.
        groups: how many neurons have each activation; no empty groups.
        provenance: where it is in the graph; None where that was not noted.
    """

    name: str
    axis: int
    groups: dict[str, int]
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

    smx_version: str
    architecture: str
    layout: str
    pool: tuple[str, ...]
    layers: tuple[LayerInfo, ...]
    tolerance: dict[str, float]
    class_names: tuple[str, ...] = ()
    sample_shape: tuple[int, ...] = ()
    maximum: float = 1.0
    precision: str = "float32"

    def to_properties(self) -> dict[str, str]:
        """Write the entries of the ONNX model's `metadata_props`; values are JSON, but for plain words."""
        values = {**vars(self), "layers": [asdict(layer) for layer in self.layers]}
        return {
            PREFIX + key: value
            if isinstance(value, str)
            else json.dumps(value, ensure_ascii=False, separators=(",", ":"))
            for key, value in values.items()
        }

    @classmethod
    def from_properties(cls, properties: Mapping[str, str]) -> ModelInfo | None:
        """Read what `to_properties` wrote; None for a model that another tool wrote.

        Raises:
            InputError: the entries are there but damaged.
        """
        if PREFIX + "smx_version" not in properties:
            return None
        try:
            layers = json.loads(properties[PREFIX + "layers"])

            def read(key: str) -> Any:
                return json.loads(properties[PREFIX + key])

            return cls(
                smx_version=properties[PREFIX + "smx_version"],
                architecture=properties[PREFIX + "architecture"],
                layout=properties[PREFIX + "layout"],
                pool=tuple(read("pool")),
                layers=tuple(map(_layer, layers)),
                tolerance={str(name): float(value) for name, value in read("tolerance").items()},
                class_names=tuple(read("class_names")),
                sample_shape=tuple(read("sample_shape")),
                maximum=float(read("maximum")),
                precision=properties.get(PREFIX + "precision", "float32"),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InputError(f"the model's smx metadata is damaged ({error}); export it again") from error


def _layer(entry: dict[str, Any]) -> LayerInfo:
    layer = LayerInfo(name=entry["name"], axis=entry["axis"], groups=entry["groups"])
    where = entry.get("provenance")  # None in files of older versions: they run, but `verify --locate` can't read them
    if where is None:
        return layer
    provenance = Provenance(
        z=str(where["z"]),
        h=str(where["h"]),
        neurons=tuple(map(int, where["neurons"])),
        kinds=tuple(
            (str(name), float(inner), float(scale), float(shift)) for name, inner, scale, shift in where["kinds"]
        ),
        kind=tuple(map(int, where["kind"])),
    )
    return replace(layer, provenance=provenance)
