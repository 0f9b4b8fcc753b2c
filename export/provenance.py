"""Where the neurons of a mixed layer are found again in the finished graph: in which order, and at which scale.

Noted at each MixedActivation, kept up to date by the passes that move things into the weights, handed to the value that
takes its place, and written into the metadata, so that `smx verify --locate` can compare neuron with neuron.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from smx.runtime.metadata import LayerInfo, Provenance

_KEY = "smx.provenance"


@dataclass(frozen=True, kw_only=True, eq=False)
class Neurons:
    """The neurons of a layer, in the order of the graph; arrays (N,).

    With z, h the values in PyTorch and z', h' those in the graph: z' = inner z and h = scale h' + shift.
    """

    layer: str
    z: str
    index: NDArray[np.int64]
    activation: NDArray[np.str_]
    inner: NDArray[np.float64]
    scale: NDArray[np.float64]
    shift: NDArray[np.float64]


def start(node: ir.Node, layer: str, activations: list[str]) -> None:
    """Note at a captured node that every neuron is still as in PyTorch."""
    count = len(activations)
    one, zero = np.ones(count), np.zeros(count)
    node.meta[_KEY] = Neurons(
        layer=layer, z="", index=np.arange(count), activation=np.array(activations), inner=one, scale=one, shift=zero
    )


def rescale(node: ir.Node, inner: NDArray[np.float64], scale: NDArray[np.float64], shift: NDArray[np.float64]) -> None:
    """Note that the node takes inner z where it took z, and gives h' where it gave scale h' + shift."""
    old: Neurons = node.meta[_KEY]
    node.meta[_KEY] = replace(
        old, inner=old.inner * inner, scale=old.scale * scale, shift=old.shift + old.scale * shift
    )


def reorder(node: ir.Node, indices: NDArray[np.int64]) -> None:
    """Note that neuron i of the node is what neuron `indices[i]` was."""
    old: Neurons = node.meta[_KEY]
    fields: dict[str, Any] = {
        name: getattr(old, name)[indices] for name in ("index", "activation", "inner", "scale", "shift")
    }
    node.meta[_KEY] = replace(old, **fields)


def hand_over(node: ir.Node, h: ir.Value) -> None:
    """Give the notes of a node to the value that takes the place of its output."""
    (z,) = node.inputs
    assert z is not None
    h.meta[_KEY] = replace(node.meta[_KEY], z=z.name or "")


def with_provenance(model: ir.Model, layers: tuple[LayerInfo, ...]) -> tuple[LayerInfo, ...]:
    """Return the layers with where they are found in a lowered model.

    Args:
        model: every mixed layer lowered.
        layers: as they were captured, in the order of the graph.
    """
    found: dict[str, list[Provenance]] = {}
    for node in model.graph:
        for value in node.outputs:
            if (neurons := value.meta.get(_KEY)) is not None:
                found.setdefault(neurons.layer, []).append(_provenance(neurons, value.name or ""))
    return tuple(replace(layer, provenance=found[layer.name].pop(0)) for layer in layers)


def _provenance(neurons: Neurons, h: str) -> Provenance:
    rows = list(zip(neurons.activation.tolist(), neurons.inner, neurons.scale, neurons.shift, strict=True))
    kinds = list(dict.fromkeys((name, float(inner), float(scale), float(shift)) for name, inner, scale, shift in rows))
    of = {kind: k for k, kind in enumerate(kinds)}
    return Provenance(
        z=neurons.z, h=h, neurons=tuple(neurons.index.tolist()), kinds=tuple(kinds), kind=tuple(of[row] for row in rows)
    )
