"""The layout `sorted`: groups that lie side by side need no indices."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import groupby

import numpy as np
import onnx_ir as ir

from smx.activations import Operator
from smx.export.capture import MixedActivation
from smx.export.emit import Emitter, emitters
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

    def __init__(self, expressions: Mapping[str, Operator]) -> None:
        super().__init__()
        self.expressions = expressions
        self.refusals: dict[str, str] = {}

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Lower the layers that are sorted."""
        modified = False
        for node, mixed, emit in emitters(model):
            runs = [(mixed.pool[k], len(list(run))) for k, run in groupby(mixed.choice)]
            groups = len({name for name, _ in runs})
            if len(runs) > 1 and len(runs) + 2 > SCATTER_OPERATORS * groups:
                reason = node.meta.get(PINNED, "it shares the order of a larger layer")
                self.refusals[emit.scope] = f"{groups} groups in {len(runs)} runs, since {reason}"
                continue
            h = self._lower(mixed, runs, emit)
            ir.convenience.replace_nodes_and_values(model.graph, node, [node], emit.nodes, node.outputs, [h])
            modified = True
        return ir.passes.PassResult(model, modified=modified)

    def _lower(self, mixed: MixedActivation, runs: list[tuple[str, int]], emit: Emitter) -> ir.Value:
        names = [name for name, _ in runs]
        if len(runs) == 1:
            return emit.activation(self.expressions[names[0]], mixed.z, part=names[0])
        sizes = emit.constant(np.array([size for _, size in runs]), part="", name="sizes")
        parts = emit.split(mixed.z, sizes, mixed.axis, names)
        values = [
            emit.activation(self.expressions[name], part, part=name) for name, part in zip(names, parts, strict=True)
        ]
        return emit.node("Concat", values, {"axis": mixed.axis})
