"""Writing new nodes: what every lowering needs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from smx.activations import Operator


class Emitter:
    """Collects the nodes that replace one node, in the name scope `scope`.

    Names are `scope/part/Operator`; a second one of the same name gets a number.
    """

    def __init__(self, graph: ir.Graph, scope: str, dtype: ir.DataType) -> None:
        self.graph = graph
        self.scope = scope
        self.dtype = dtype
        self.nodes: list[ir.Node] = []
        self._names: set[str] = set()

    def node(
        self,
        operator: str,
        inputs: list[ir.Value],
        attributes: Mapping[str, Any] | None = None,
        *,
        part: str = "",
    ) -> ir.Value:
        """Add a node of the standard domain with one output, and return it."""
        name = self._name(part, operator)
        node = ir.node(operator, inputs, attributes, name=name)
        node.outputs[0].name = name
        self.nodes.append(node)
        return node.outputs[0]

    def constant(self, array: NDArray[Any], *, part: str, name: str) -> ir.Value:
        """Add an initializer and return it."""
        full_name = self._name(part, name)
        value = ir.Value(name=full_name, const_value=ir.tensor(array, name=full_name))
        value.type = ir.TensorType(value.const_value.dtype)  # type: ignore[union-attr]
        value.shape = ir.Shape(array.shape)
        self.graph.register_initializer(value)
        return value

    def activation(self, operator: Operator, z: ir.Value, *, part: str) -> ir.Value:
        """Add the nodes of an activation's ONNX expression, applied to `z`."""
        inputs = []
        for source in operator.inputs:
            if isinstance(source, Operator):
                inputs.append(self.activation(source, z, part=part))
            elif isinstance(source, str):
                inputs.append(z)
            else:
                inputs.append(self.constant(np.array(source, self.dtype.numpy()), part=part, name="constant"))
        return self.node(operator.type, inputs, dict(operator.attributes), part=part)

    def _name(self, part: str, last: str) -> str:
        stem = "/".join(filter(None, (self.scope, part, last)))
        name, number = stem, 1
        while name in self._names:
            number += 1
            name = f"{stem}_{number}"
        self._names.add(name)
        return name
