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
from smx.export import traces
from smx.export.weights import permute
from smx.hinges import Function, hinge_of
from smx.layers import Mixed
from smx.sorting import Plan

UNSORTED = "smx.unsorted"
"""Key of a node's `meta`: why its neurons keep an order that is not sorted."""


def plan(module: nn.Module, example: tuple[Tensor, ...]) -> Plan:
    """Plan to sort the neurons of a committed module so that groups that the compiler may merge lie side by side."""
    return sorting.plan(module, example, keys=_keys, modes=(False,))


def permute_weights(model: ir.Model, plan: Plan) -> None:
    """Permute the initializers of a model in which they are as PyTorch has them."""
    for name, axes in plan.permutations.items():
        if name in model.graph.initializers:
            for axis, old in axes.items():
                permute(model.graph.initializers[name], np.array(old), axis)


def permute_layer(node: ir.Node, layer: str, plan: Plan) -> None:
    """Permute the choice of a MixedActivation, and note where its neurons are now, or why they stay."""
    if old := plan.permutations.get(f"{layer}.choice", {}).get(0):
        choice = node.attributes["choice"].as_ints()
        node.attributes["choice"] = ir.AttrInt64s("choice", [choice[i] for i in old])
        traces.reorder(node, np.array(old))
    if layer in plan.refusals:
        node.meta[UNSORTED] = plan.refusals[layer]


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
