"""The compiler is a list of passes; a layout is what stands in the middle of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import onnx_ir as ir
from onnx_ir.passes import common

from smx.export.passes import (
    FoldAffine,
    LowerInPlace,
    LowerToScatter,
    LowerToSorted,
    MergeGroups,
    NameByModule,
    Rewriting,
)

Passes = list[ir.passes.PassBase]


@dataclass(frozen=True)
class PassReport:
    """What the pass `name` did, see `Rewriting`."""

    name: str
    applied: int
    refusals: dict[str, str]


def known_shapes() -> Passes:
    """Make every constant an initializer, and infer every shape: the passes below read both."""
    lift = common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)
    return [lift, common.ShapeInferencePass()]


def tidy() -> Passes:
    """Remove what is not used, and PyTorch's notes; sort the nodes."""
    unused = [common.RemoveUnusedNodesPass(), common.RemoveUnusedOpsetsPass()]
    return [*unused, common.ClearMetadataAndDocStringPass(), common.TopologicalSortPass()]


LAYOUTS: dict[str, Callable[[bool], Passes]] = {
    "scatter": lambda shifts: [LowerToScatter()],
    "sorted": lambda shifts: [
        FoldAffine(shifts=shifts),
        MergeGroups(shifts=shifts),
        LowerToSorted(),
        LowerInPlace(),  # of the layers that LowerToSorted left
    ],
}
"""How a mixed layer can stand in the graph, with the passes that bring it there; see `compile` for `shifts`."""


def compile(model: ir.Model, layout: str, *, shifts: bool = True) -> tuple[PassReport, ...]:
    """Turn a captured model into one of standard operators only, in place; return what each pass did, in their order.

    Args:
        model: with its mixed layers as `smx::MixedActivation`.
        layout: a key of `LAYOUTS`.
        shifts: let constants move from one layer's activations into the next one's weights, see `MergeGroups`.
    """
    passes = [NameByModule(), *known_shapes(), *LAYOUTS[layout](shifts), *tidy()]
    ir.passes.Sequential(*passes)(model)
    return tuple(
        PassReport(type(step).__name__, step.applied, step.refusals) for step in passes if isinstance(step, Rewriting)
    )
