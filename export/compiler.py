"""The compiler is a list of passes for each layout."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import onnx_ir as ir
from onnx_ir.passes import common

from smx.activations import Activation
from smx.export.passes import LowerToScatter, NameByModule

Activations = Mapping[str, Activation]


def _scatter(activations: Activations) -> list[ir.passes.PassBase]:
    return [
        NameByModule(),
        LowerToScatter(activations),
        common.RemoveUnusedNodesPass(),
        common.RemoveUnusedOpsetsPass(),
        common.ClearMetadataAndDocStringPass(),
        common.TopologicalSortPass(),
    ]


LAYOUTS: dict[str, Callable[[Activations], list[ir.passes.PassBase]]] = {"scatter": _scatter}
"""How a mixed layer can stand in the graph, with the passes that bring it there."""


def compile(model: ir.Model, layout: str, activations: Activations) -> ir.Model:
    """Turn a captured model into one of standard operators only.

    Args:
        model: with its mixed layers as `smx::MixedActivation`; changed in place.
        layout: a key of `LAYOUTS`.
        activations: those that the layers use, by name.
    """
    result = ir.passes.Sequential(*LAYOUTS[layout](activations))(model)
    return result.model
