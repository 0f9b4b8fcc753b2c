"""The base of the passes of this compiler: they report what they changed, and what they had to leave and why."""

from __future__ import annotations

import onnx_ir as ir


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
