"""The metadata of an exported file: one key of the ONNX model's `metadata_props` for each field, which viewers show."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
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
    chosen: tuple[str, ...] = ()

    def to_properties(self) -> dict[str, str]:
        """Write the entries of the ONNX model's `metadata_props`; values are JSON, but for plain words."""
        return {
            PREFIX + key: value
            if isinstance(value, str)
            else json.dumps(value, ensure_ascii=False, separators=(",", ":"))
            for key, value in asdict(self).items()
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
            given = {PREFIX + "chosen": "[]", **properties}  # files of an older version have no such entry
            texts = {field.name: (field.type, given[PREFIX + field.name]) for field in fields(cls)}
            values: dict[str, Any] = {
                key: text if kind == "str" else _tuples(json.loads(text)) for key, (kind, text) in texts.items()
            }
            values["tolerance"] = {name: float(value) for name, value in values["tolerance"].items()}
            return cls(
                **{**values, "layers": tuple(map(_layer, values["layers"])), "maximum": float(values["maximum"])}
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InputError(f"the model's smx metadata is damaged ({error}); export it again") from error


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def _layer(entry: dict[str, Any]) -> LayerInfo:
    fields = {key: _tuples(value) for key, value in (entry["provenance"] or {}).items()}
    return LayerInfo(**{**entry, "provenance": Provenance(**fields) if fields else None})
