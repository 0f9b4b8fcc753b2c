"""The layout `sorted`: groups that lie side by side need no indices."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import groupby

import numpy as np
import onnx_ir as ir

from smx.activations import Activation
from smx.export.capture import mixed_nodes
from smx.export.emit import emitters
from smx.export.passes.sort_neurons import PINNED

SCATTER_OPERATORS = 5
"""What the layout `scatter` takes for a group."""


class LowerToSorted(ir.passes.InPlacePass):
    """Replace a MixedActivation whose choice is sorted by standard operators.

    With the neurons in runs R_1, R_2, ... of one activation each,

        h = Concat(f_1(z[R_1]), f_2(z[R_2]), ...),    z[R_1], z[R_2], ... = Split(z)

    A layer in so many runs that it would take more operators than with Gather and ScatterElements is left to them,
    and `refusals` says why, by the layer's name scope.
    """

    def __init__(self, activations: Mapping[str, Activation]) -> None:
        super().__init__()
        self.activations = activations
        self.refusals: dict[str, str] = {}

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Lower the layers that are sorted."""
        modified = False
        for node, emit in emitters(model, mixed_nodes(model)):
            z = node.inputs[0]
            assert z is not None
            axis, pool = node.attributes["axis"].as_int(), node.attributes["pool"].as_strings()
            runs = [(k, len(list(run))) for k, run in groupby(node.attributes["choice"].as_ints())]
            groups = len({k for k, _ in runs})
            if len(runs) > 1 and len(runs) + 2 > SCATTER_OPERATORS * groups:
                shared = "it shares the order of a larger layer"
                reason = node.meta.get(PINNED, shared)
                self.refusals[emit.scope] = f"{groups} groups in {len(runs)} runs, since {reason}"
                continue
            expressions = [self.activations[pool[k]].onnx for k, _ in runs]
            if len(runs) == 1:
                assert expressions[0] is not None
                h = emit.activation(expressions[0], z, part=pool[runs[0][0]])
            else:
                sizes = emit.constant(np.array([size for _, size in runs]), part="", name="sizes")
                parts = emit.split(z, sizes, axis, [pool[k] for k, _ in runs])
                values = []
                for (k, _), expression, part in zip(runs, expressions, parts, strict=True):
                    assert expression is not None
                    values.append(emit.activation(expression, part, part=pool[k]))
                h = emit.node("Concat", values, {"axis": axis})
            ir.convenience.replace_nodes_and_values(model.graph, node, [node], emit.nodes, node.outputs, [h])
            modified = True
        return ir.passes.PassResult(model, modified=modified)
