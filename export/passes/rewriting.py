"""What the passes of this compiler have in common: they say what they did, and what they had to leave."""

from __future__ import annotations

import onnx_ir as ir


class Rewriting(ir.passes.InPlacePass):
    """A pass with an account.

    Attributes:
        applied: how many places it changed.
        refusals: for each place that it had to leave, by its name scope, why.
    """

    def __init__(self) -> None:
        super().__init__()
        self.applied = 0
        self.refusals: dict[str, str] = {}
