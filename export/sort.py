"""The order of the neurons in the layout `sorted`, planned on the module and applied to the captured graph.

The captured graph's initializers have the names of the module's parameters and buffers, so the plan of `smx.sorting`
applies to them as it does to the module. They are permuted when they are written, one at a time.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir
from torch import Tensor, nn

from smx import sorting
from smx.activations import op
from smx.export import provenance
from smx.export.capture import MixedActivation, mixed_nodes
from smx.export.weights import permute
from smx.hinges import Function, hinge_of
from smx.layers import Mixed

UNSORTED = "smx.unsorted"
"""Key of a node's `meta`: why its neurons keep an order that is not sorted."""


def sort_neurons(model: ir.Model, module: nn.Module, example: tuple[Tensor, ...]) -> None:
    """Permute weights and choices so that groups that the compiler may merge lie side by side, where that is possible.

    Args:
        model: as it was captured; at the MixedActivation nodes is noted which layers stay unsorted, and why.
        module: what it was captured from.
        example: the arguments that it was captured with.
    """
    plan = sorting.plan(module, example, keys=_keys, modes=(False,))
    for name, axes in plan.permutations.items():
        if name in model.graph.initializers:
            for axis, old in axes.items():
                permute(model.graph.initializers[name], np.array(old), axis)
    for node in mixed_nodes(model):
        mixed = MixedActivation.of(node)
        if moved := plan.permutations.get(f"{mixed.layer}.choice"):
            node.attributes["choice"] = ir.AttrInt64s("choice", mixed.choice[moved[0]].tolist())
            provenance.reorder(node, np.array(moved[0]))
        if mixed.layer in plan.refusals:
            node.meta[UNSORTED] = plan.refusals[mixed.layer]


def _keys(layer: Mixed) -> Sequence[int]:
    """Return the place of each neuron's activation among those of its layer."""
    functions = {k: layer.pool[k].onnx for k in sorted(set(layer.choice.tolist()))}
    ordered = sorted(dict.fromkeys(f for f in functions.values() if f is not None), key=_rank)
    return [ordered.index(function) if (function := functions[k]) is not None else 0 for k in layer.choice.tolist()]


def _rank(function: Function) -> tuple[float, ...]:
    """Sigmoid and Tanh last of those that have no common form (`smx.hinges`), then lines, ReLU, and exponentials."""
    hinge = hinge_of(function)
    if hinge is None:
        return (0, function in (op("Sigmoid"), op("Tanh")))
    return (1, abs(hinge.exponential / hinge.positive), -hinge.negative / hinge.positive)
