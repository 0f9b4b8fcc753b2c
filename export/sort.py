"""The order of the neurons in the layout `sorted`: planned on the module, applied to the captured graph.

The initializers of a captured graph have the names of the module's parameters and buffers, so the plan of `smx.sorting`
applies to them as it does to the module. They are permuted when they are written, one at a time.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
from torch import nn

from smx import sorting
from smx.export import provenance
from smx.export.capture import UNSORTED, MixedActivation, mixed_nodes, simplify
from smx.export.compiler import known_shapes
from smx.export.passes import FoldAffine, MergeGroups
from smx.export.weights import permute


def sort_neurons(model: ir.Model, module: nn.Module, example: tuple[Any, ...], *, shifts: bool) -> None:
    """Permute weights and choices so that neurons of one group lie side by side, where that is possible.

    The groups are those that `MergeGroups` makes in a copy of the model.

    Args:
        model: as it was captured from `module` with the arguments `example`; a layer that stays unsorted gets a note at
            its node that says why.
        shifts: as for `smx.export.compiler.compile`.
    """
    trial = model.clone()
    simplify(trial)
    ir.passes.Sequential(*known_shapes(), FoldAffine(shifts=shifts), MergeGroups(shifts=shifts))(trial)
    groups = {mixed.layer: mixed.choice.tolist() for mixed in map(MixedActivation.of, mixed_nodes(trial))}
    plan = sorting.plan(module, example, keys=groups, modes=(False,))
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
