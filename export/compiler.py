"""The compiler is a list of passes for each layout."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import onnx_ir as ir
from onnx_ir.passes import common

from smx.activations import Activation
from smx.export.passes import LowerToScatter, LowerToSorted, NameByModule, SortNeurons

Activations = Mapping[str, Activation]
Passes = list[ir.passes.PassBase]


@dataclass(frozen=True)
class Compiled:
    """A model of standard operators only.

    Attributes:
        model: the model.
        refusals: for each layer that a pass had to leave as it was, why.
    """

    model: ir.Model
    refusals: dict[str, str]


def _scatter(activations: Activations) -> Passes:
    return [NameByModule(), LowerToScatter(activations), *_tidy()]


def _sorted(activations: Activations) -> Passes:
    return [
        NameByModule(),
        common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        common.ShapeInferencePass(),
        SortNeurons(),
        LowerToSorted(activations),
        LowerToScatter(activations),
        *_tidy(),
    ]


def _tidy() -> Passes:
    return [
        common.RemoveUnusedNodesPass(),
        common.RemoveUnusedOpsetsPass(),
        common.ClearMetadataAndDocStringPass(),
        common.TopologicalSortPass(),
    ]


LAYOUTS: dict[str, Callable[[Activations], Passes]] = {"scatter": _scatter, "sorted": _sorted}
"""How a mixed layer can stand in the graph, with the passes that bring it there."""


def compile(model: ir.Model, layout: str, activations: Activations) -> Compiled:
    """Turn a captured model into one of standard operators only.

    Args:
        model: with its mixed layers as `smx::MixedActivation`; changed in place.
        layout: a key of `LAYOUTS`.
        activations: those that the layers use, by name.
    """
    passes = LAYOUTS[layout](activations)
    result = ir.passes.Sequential(*passes)(model)
    refusals = {layer: why for step in passes for layer, why in getattr(step, "refusals", {}).items()}
    return Compiled(result.model, refusals)
