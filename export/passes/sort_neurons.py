"""Neurons that share an activation come to lie side by side."""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from smx.export import provenance
from smx.export.capture import MixedActivation, mixed_nodes
from smx.export.passes.rewriting import Rewriting
from smx.export.ties import tie_node
from smx.export.weights import permute
from smx.sorting.orders import Orders, indices, sort_channels
from smx.sorting.ties import pin_all

PINNED = "smx.pinned"
"""Key of a node's `meta`: why its neurons had to keep their order."""


class SortNeurons(Rewriting):
    """Permute the channels of every mixed layer so that its choice is sorted, at export instead of at run time.

    With P the permutation that sorts the choice, f a mixed layer and f_P the one with its choice permuted,

        W2 f(W1 x + b1)  =  (W2 P^-1) f_P((P W1) x + P b1)

    so P moves into the rows and biases of the producers and into the columns of the consumers. What lies between them
    must keep channels apart (`smx.export.ties`); everything that is tied together is permuted alike, residual branches
    and depthwise weights included. Where something pins the order, the layer stays, and `node.meta[PINNED]` says why.

    Where several mixed layers share one order, the one with the most values is sorted, and the next one within its
    groups, so that it stands in a few runs.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Sort the whole graph."""
        graph = model.graph
        orders = Orders()
        pin_all(orders, graph.inputs, "it is an input of the model")
        pin_all(orders, graph.outputs, "it is an output of the model")
        for node in graph:
            tie_node(orders, node)
        for node in graph.all_nodes():
            if node.graph is not graph:
                pin_all(orders, [x for x in node.inputs if x is not None], "a branch or a loop uses it")
        keyed = []
        for node in sorted(mixed_nodes(model), key=_values, reverse=True):
            mixed = MixedActivation.of(node)
            order = orders.of(mixed.z, mixed.axis)
            for channels, _ in order:
                if channels.pinned:
                    node.meta[PINNED] = channels.pinned
            keyed.append((order, mixed.choice.tolist()))
        self.applied = sort_channels(keyed)
        self._permute(model, orders)
        return ir.passes.PassResult(model, modified=self.applied > 0)

    def _permute(self, model: ir.Model, orders: Orders) -> None:
        for node in mixed_nodes(model):
            mixed = MixedActivation.of(node)
            moved = _indices(orders, mixed.z, mixed.axis)
            if moved is not None:
                node.attributes["choice"] = ir.AttrInt64s("choice", mixed.choice[moved].tolist())
                provenance.reorder(node, moved)
        for value in model.graph.initializers.values():
            for axis in range(len(value.shape or ())):
                moved = _indices(orders, value, axis)
                if moved is not None:
                    permute(value, moved, axis)


def _indices(orders: Orders, value: ir.Value, axis: int) -> NDArray[np.int64] | None:
    moved = indices(orders.of(value, axis))
    return None if moved is None else np.array(moved)


def _values(node: ir.Node) -> int:
    """Return how many values the layer has for one example: what sorting it is worth."""
    shape = node.outputs[0].shape
    return math.prod(size for size in shape or () if isinstance(size, int))
