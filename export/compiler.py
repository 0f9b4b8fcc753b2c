"""The compiler is a list of passes for each layout."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import onnx_ir as ir
from onnx_ir.passes import common

from smx.activations import Operator
from smx.export.passes import LowerToScatter, LowerToSorted, NameByModule, SortNeurons

Expressions = Mapping[str, Operator]
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


def _scatter(expressions: Expressions) -> Passes:
    return [NameByModule(), LowerToScatter(expressions), *_tidy()]


def _sorted(expressions: Expressions) -> Passes:
    return [
        NameByModule(),
        common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        common.ShapeInferencePass(),
        SortNeurons(),
        LowerToSorted(expressions),
        LowerToScatter(expressions),
        *_tidy(),
    ]


def _tidy() -> Passes:
    return [
        common.RemoveUnusedNodesPass(),
        common.RemoveUnusedOpsetsPass(),
        common.ClearMetadataAndDocStringPass(),
        common.TopologicalSortPass(),
    ]


LAYOUTS: dict[str, Callable[[Expressions], Passes]] = {"scatter": _scatter, "sorted": _sorted}
"""How a mixed layer can stand in the graph, with the passes that bring it there."""


def compile(model: ir.Model, layout: str, expressions: Expressions) -> Compiled:
    """Turn a captured model into one of standard operators only.

    Args:
        model: with its mixed layers as `smx::MixedActivation`; changed in place.
        layout: a key of `LAYOUTS`.
        expressions: the ONNX expressions of the activations that the layers use, by name.
    """
    passes = LAYOUTS[layout](expressions)
    result = ir.passes.Sequential(*passes)(model)
    refusals = {layer: why for step in passes for layer, why in getattr(step, "refusals", {}).items()}
    return Compiled(result.model, refusals)
