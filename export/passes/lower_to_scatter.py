"""The layout `scatter`: neurons stay where they are."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from smx.activations import Operator
from smx.export.capture import MixedActivation
from smx.export.emit import Emitter, emitters


class LowerToScatter(ir.passes.InPlacePass):
    """Replace every MixedActivation by standard operators.

    With G_k the neurons that chose activation k (eq. 9), h starts as z, and for each k with G_k not empty

        h = ScatterElements(h, G_k, f_k(Gather(z, G_k)))

    along the neurons' axis. ScatterElements wants an index for every value: G_k is expanded to their shape, which
    holds the batch. The groups cover every neuron, so nothing of z remains in h (eq. 11). A layer with one group is
    just that activation: f_k(z).
    """

    def __init__(self, expressions: Mapping[str, Operator]) -> None:
        super().__init__()
        self.expressions = expressions

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Lower the whole graph."""
        modified = False
        for node, mixed, emit in emitters(model):
            h = self._lower(mixed, emit)
            ir.convenience.replace_nodes_and_values(model.graph, node, [node], emit.nodes, node.outputs, [h])
            modified = True
        return ir.passes.PassResult(model, modified=modified)

    def _lower(self, mixed: MixedActivation, emit: Emitter) -> ir.Value:
        z, choice, pool, axis, _ = mixed
        assert z.shape is not None
        along_axis = [-1 if i == axis else 1 for i in range(len(z.shape))]
        present = np.unique(choice)
        if len(present) == 1:
            name = pool[present[0]]
            return emit.activation(self.expressions[name], z, part=name)
        h = z
        for k in present:
            name = pool[k]
            neurons = np.flatnonzero(choice == k)
            index = emit.constant(neurons, part=name, name="neurons")
            gathered = emit.node("Gather", [z, index], {"axis": axis}, part=name)
            f = emit.activation(self.expressions[name], gathered, part=name)
            row = emit.constant(neurons.reshape(along_axis), part=name, name="neurons_row")
            indices = emit.node("Expand", [row, emit.node("Shape", [f], part=name)], part=name)
            h = emit.node("ScatterElements", [h, indices, f], {"axis": axis}, part=name)
        return h
