"""The base classes of the passes: a pass counts what it changed, and says what it had to leave and why."""

from __future__ import annotations

from abc import abstractmethod

import onnx_ir as ir

from smx.export.capture import MixedActivation
from smx.export.emit import Emitter, emitters


class Rewriting(ir.passes.InPlacePass):
    """A pass that reports what it did.

    Attributes:
        applied: how many places it changed.
        refusals: for each place that it had to leave, by its name scope, why.
    """

    def __init__(self) -> None:
        super().__init__()
        self.applied = 0
        self.refusals: dict[str, str] = {}

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Rewrite the graph in place."""
        self.rewrite(model)
        return ir.passes.PassResult(model, modified=self.applied > 0)

    @abstractmethod
    def rewrite(self, model: ir.Model) -> None:
        """Change the graph, and record it in `applied` and `refusals`."""


class Lowering(Rewriting):
    """A pass that replaces MixedActivation nodes."""

    def rewrite(self, model: ir.Model) -> None:
        """Lower every layer of the graph."""
        for node, mixed, emit in emitters(model):
            if (h := self.lower(mixed, emit)) is not None:
                emit.replace(node, h)
                self.applied += 1

    @abstractmethod
    def lower(self, mixed: MixedActivation, emit: Emitter) -> ir.Value | None:
        """Add the operators of a layer, and return their result; None leaves the layer as it is."""
