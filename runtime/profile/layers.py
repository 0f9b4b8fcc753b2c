"""The layer of each node that ONNX Runtime runs, by its name and the names of its outputs."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from smx.runtime.graph import NodeInfo

OTHER = "other"
"""The layer of nodes without a module path, and of nodes that ONNX Runtime added."""

ADDED = re.compile(r"^(fused |InsertedPrecisionFreeCast_|FusedBack_)+|/\w+Fusion/?$|(_bn|_mul)?(_nchwc)?(_token_\d+)?$")
"""What ONNX Runtime adds to the name of a node or value that it fuses, converts or moves to blocks of channels."""


def layer_of(name: str, mixed: Sequence[str]) -> str:
    """Return the layer of a file's node `module/path/Operator`: the mixed layer that it is a part of, or its path."""
    scope = name.rpartition("/")[0].replace("/", ".")
    inside = [layer for layer in mixed if layer and f"{scope}.".startswith(f"{layer}.")]
    return max(inside, key=len, default=scope or OTHER)


def layers(executed: Iterable[NodeInfo], file: Sequence[NodeInfo], mixed: Sequence[str]) -> list[str]:
    """Return the layer of each executed node: that of the file's node with its name, or that makes one of its outputs.

    A converted constant has the layer of the first node of the file that takes it.
    """
    owners = {value: node.name for node in reversed(file) for value in node.inputs}
    owners |= {name: node.name for node in file for name in (*node.outputs, node.name)}
    owners.pop("", None)

    def owner(node: NodeInfo) -> str:
        names = (node.name, *node.outputs)
        return next((owners[name] for each in names for name in (each, ADDED.sub("", each)) if name in owners), "")

    return [layer_of(owner(node), mixed) for node in executed]
