"""The layout `scatter`: neurons stay where they are."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from smx.activations import Activation
from smx.export.capture import mixed_nodes
from smx.export.emit import Emitter, emitters


class LowerToScatter(ir.passes.InPlacePass):
    """Replace every MixedActivation by standard operators.

    With G_k the neurons that chose activation k (eq. 9), h starts as z, and for each k with G_k not empty

        h = ScatterElements(h, G_k, f_k(Gather(z, G_k)))

    along the neurons' axis. ScatterElements wants an index for every value: G_k is expanded to their shape, which
    holds the batch. The groups cover every neuron, so nothing of z remains in h (eq. 11). A layer with one group is
    just that activation: f_k(z).
    """

    def __init__(self, activations: Mapping[str, Activation]) -> None:
        super().__init__()
        self.activations = activations

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Lower the whole graph."""
        found = mixed_nodes(model)
        for node, emit in emitters(model, found):
            self._lower(model.graph, node, emit)
        return ir.passes.PassResult(model, modified=bool(found))

    def _lower(self, graph: ir.Graph, node: ir.Node, emit: Emitter) -> None:
        z = node.inputs[0]
        assert z is not None
        assert z.shape is not None
        axis = node.attributes["axis"].as_int()
        choice = np.array(node.attributes["choice"].as_ints(), np.int64)
        pool = node.attributes["pool"].as_strings()
        present = np.unique(choice)
        h = z
        for k in present:
            name = pool[k]
            expression = self.activations[name].onnx
            assert expression is not None  # refused before the capture
            if len(present) == 1:
                h = emit.activation(expression, z, part=name)
                break
            neurons = np.flatnonzero(choice == k)
            index = emit.constant(neurons, part=name, name="neurons")
            f = emit.activation(expression, emit.node("Gather", [z, index], {"axis": axis}, part=name), part=name)
            along_axis = [-1 if i == axis else 1 for i in range(len(z.shape))]
            row = emit.constant(neurons.reshape(along_axis), part=name, name="neurons_row")
            indices = emit.node("Expand", [row, emit.node("Shape", [f], part=name)], part=name)
            h = emit.node("ScatterElements", [h, indices, f], {"axis": axis}, part=name)
        ir.convenience.replace_nodes_and_values(graph, node, [node], emit.nodes, node.outputs, [h])
