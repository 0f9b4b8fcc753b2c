"""Names that tell where in the PyTorch module a node comes from."""

from __future__ import annotations

import ast

import onnx_ir as ir

from smx.export.capture import SCOPES
from smx.export.emit import free_name
from smx.export.passes.base import Rewriting

UNKNOWN = "_empty_nn_module_stack"


class NameByModule(Rewriting):
    """Name every node that PyTorch's exporter made `module/path/Operator`, and its output likewise.

    The exporter notes for each node the module paths it was reached through, from the outermost, and last the call
    itself; the one before the last is the innermost module. Inputs and outputs of the graph keep their names.
    """

    def rewrite(self, model: ir.Model) -> None:
        """Rename in place."""
        taken: set[str] = set()
        outputs = set(model.graph.outputs)
        for node in model.graph:
            scopes = [s for s in ast.literal_eval(node.metadata_props.get(SCOPES, "[]")) if not s.startswith(UNKNOWN)]
            if len(scopes) < 2:
                continue
            stem = "/".join(filter(None, (scopes[-2].replace(".", "/"), node.op_type)))
            node.name = name = free_name(stem, taken)
            for i, value in enumerate(node.outputs):
                if value not in outputs:
                    value.name = f"{name}:{i}" if i else name
            self.applied += 1
