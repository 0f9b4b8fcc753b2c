"""Provenance: which neuron of PyTorch each neuron of the finished graph is, and at which scale.

It is recorded at each MixedActivation, updated by the passes that move something into the weights, given to the value
that replaces the node, and written into the metadata, so that `smx verify --locate` can compare neuron with neuron.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from smx.export.nodes import operand
from smx.runtime.metadata import Kind, LayerInfo, Provenance

_KEY = "smx.provenance"


@dataclass(frozen=True, kw_only=True, eq=False)
class Neurons:
    """The neurons of a layer, in the order of the graph; arrays (N,).

    With z, h the values in PyTorch and z', h' those in the graph: z' = inner z + offset and h = scale h' + shift.
    """

    layer: str
    z: str
    index: NDArray[np.int64]
    activation: NDArray[np.str_]
    inner: NDArray[np.float64]
    scale: NDArray[np.float64]
    shift: NDArray[np.float64]
    offset: NDArray[np.float64]


def start(
    node: ir.Node,
    layer: str,
    activations: list[str],
    scale: NDArray[np.float64] | None = None,
    shift: NDArray[np.float64] | None = None,
) -> None:
    """Record at a captured node that every neuron is as in PyTorch, whose layer also applies scale and shift."""
    count = len(activations)
    one, zero = np.ones(count), np.zeros(count)
    node.meta[_KEY] = Neurons(
        layer=layer,
        z="",
        index=np.arange(count),
        activation=np.array(activations),
        inner=one,
        scale=one if scale is None else scale,
        shift=zero if shift is None else shift,
        offset=zero,
    )


def rescale(
    node: ir.Node,
    inner: NDArray[np.float64],
    offset: NDArray[np.float64],
    scale: NDArray[np.float64],
    shift: NDArray[np.float64],
) -> None:
    """Record that the node takes inner z + offset instead of z, and gives h' instead of scale h' + shift."""
    old: Neurons = node.meta[_KEY]
    node.meta[_KEY] = replace(
        old,
        inner=old.inner * inner,
        offset=old.offset * inner + offset,
        scale=old.scale * scale,
        shift=old.shift + old.scale * shift,
    )


def reorder(node: ir.Node, indices: NDArray[np.int64]) -> None:
    """Record that neuron i of the node was neuron `indices[i]`."""
    old: Neurons = node.meta[_KEY]
    arrays = ("index", "activation", "inner", "scale", "shift", "offset")
    node.meta[_KEY] = replace(old, **{name: getattr(old, name)[indices] for name in arrays})


def hand_over(node: ir.Node, h: ir.Value) -> None:
    """Give the record of a node to the value that replaces its output."""
    h.meta[_KEY] = replace(node.meta[_KEY], z=operand(node, 0).name or "")


def with_provenance(model: ir.Model, layers: tuple[LayerInfo, ...]) -> tuple[LayerInfo, ...]:
    """Return the layers, in the order of the graph, with their provenance in the lowered model."""
    found: dict[str, list[Provenance]] = {}
    for node in model.graph:
        for value in node.outputs:
            if (neurons := value.meta.get(_KEY)) is not None:
                columns = (neurons.activation, neurons.inner, neurons.scale, neurons.shift, neurons.offset)
                rows = list(map(Kind, *(column.tolist() for column in columns)))
                kinds, indices = tuple(dict.fromkeys(rows)), tuple(neurons.index.tolist())
                kind, h = tuple(map(kinds.index, rows)), value.name or ""
                entry = Provenance(z=neurons.z, h=h, neurons=indices, kinds=kinds, kind=kind)
                found.setdefault(neurons.layer, []).append(entry)
    return tuple(replace(layer, provenance=found[layer.name].pop(0)) for layer in layers)
