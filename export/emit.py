"""Write new nodes, as every lowering does."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray

from smx.activations import Operator
from smx.export import provenance
from smx.export.capture import MixedActivation, mixed_nodes
from smx.hinges import Function, Hinge

EXPANDED = 8192
"""The file holds at most this many indices, 8 bytes each, for one ScatterElements."""


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
        inputs: Sequence[ir.Value | None],
        attributes: Mapping[str, Any] | None = None,
        *,
        part: str = "",
    ) -> ir.Value:
        """Add a node of the standard domain with one output, and return it."""
        node = ir.node(operator, inputs, attributes, name=self._name(part, operator))
        node.outputs[0].name = node.name
        self.nodes.append(node)
        return node.outputs[0]

    def apart(
        self,
        z: ir.Value,
        axis: int,
        sizes: Sequence[int],
        parts: Sequence[str],
        compute: Callable[[int, ir.Value], ir.Value],
    ) -> ir.Value:
        """Add a Split of `z` along an axis into parts of these sizes and names, and a Concat; one part needs neither.

        For each part i, `compute(i, part)` adds the nodes, and returns a value of its shape.
        """
        if len(sizes) == 1:
            return compute(0, z)
        lengths = self.constant(np.array(sizes), part="", name="sizes")
        node = ir.node("Split", [z, lengths], {"axis": axis}, name=self._name("", "Split"), num_outputs=len(parts))
        for value, part in zip(node.outputs, parts, strict=True):
            value.name = self._name(part, "z")
        self.nodes.append(node)
        return self.node("Concat", [compute(i, value) for i, value in enumerate(node.outputs)], {"axis": axis})

    def gather(self, mixed: MixedActivation, neurons: NDArray[np.int64], *, part: str) -> ir.Value:
        """Add a Gather of the pre-activations of some neurons, int64 (n,)."""
        index = self.constant(neurons, part=part, name="neurons")
        return self.node("Gather", [mixed.z, index], {"axis": mixed.axis}, part=part)

    def scatter(
        self, mixed: MixedActivation, h: ir.Value, neurons: NDArray[np.int64], f: ir.Value, *, part: str
    ) -> ir.Value:
        """Add a ScatterElements that writes `f`, the values of some neurons, into `h`, those of the whole layer.

        ScatterElements takes an index for each value, not for each neuron. These indices are a constant of the file
        where the batch is known and they are at most `EXPANDED`; otherwise an Expand makes them at run time.
        """
        shape = [len(neurons) if i == mixed.axis else size for i, size in enumerate(mixed.z.shape or ())]
        row = neurons.reshape([-1 if i == mixed.axis else 1 for i in range(len(shape))])
        sizes = [size for size in shape if isinstance(size, int)]
        if len(sizes) == len(shape) and math.prod(sizes) <= EXPANDED:
            expanded = np.ascontiguousarray(np.broadcast_to(row, sizes))
            indices = self.constant(expanded, part=part, name="indices")
        else:
            like = self.node("Shape", [f], part=part)
            indices = self.node("Expand", [self.constant(row, part=part, name="neurons_row"), like], part=part)
        return self.node("ScatterElements", [h, indices, f], {"axis": mixed.axis}, part=part)

    def constant(self, array: NDArray[Any], *, part: str, name: str) -> ir.Value:
        """Add an initializer and return it."""
        return add_initializer(self.graph, self._name(part, name), array)

    def replace(self, node: ir.Node, h: ir.Value) -> None:
        """Put the collected nodes, whose result is `h`, in the place of a node."""
        provenance.hand_over(node, h)
        ir.convenience.replace_nodes_and_values(self.graph, node, [node], self.nodes, node.outputs, [h])

    def activation(self, function: Function, z: ir.Value, *, part: str) -> ir.Value:
        """Add the nodes of an activation, applied to `z`."""
        if isinstance(function, Hinge):
            return self.hinges([function], z, trailing=0, part=part)
        inputs = []
        for source in function.inputs:
            if isinstance(source, Operator):
                inputs.append(self.activation(source, z, part=part))
            else:
                number = None if isinstance(source, str) else np.array(source, self.dtype.numpy())
                inputs.append(z if number is None else self.constant(number, part=part, name="constant"))
        kinds = onnx.defs.get_schema(function.type).attributes if onnx.defs.has(function.type) else {}
        floats = {name for name, kind in kinds.items() if kind.type == onnx.defs.OpSchema.AttrType.FLOAT}
        attributes = {name: float(value) if name in floats else value for name, value in function.attributes}
        return self.node(function.type, inputs, attributes, part=part)

    def hinges(self, hinges: Sequence[Hinge], z: ir.Value, *, trailing: int, part: str) -> ir.Value:
        """Add the fewest nodes that compute a hinge for each neuron of `z`, or one for all.

        The axis of the neurons is followed by `trailing` axes.
        """
        positive, negative, exponential, constant = (
            np.array([getattr(hinge, name) for hinge in hinges])
            for name in ("positive", "negative", "exponential", "constant")
        )

        def numbers(array: NDArray[np.float64], name: str) -> ir.Value:
            uniform = bool(np.all(array == array[0]))
            shaped = array[0] if uniform else array.reshape(-1, *(1,) * trailing)
            return self.constant(np.asarray(shaped, self.dtype.numpy()), part=part, name=name)

        def times(value: ir.Value, array: NDArray[np.float64], name: str) -> ir.Value:
            return value if np.all(array == 1) else self.node("Mul", [value, numbers(array, name)], part=part)

        if np.all(negative == 0):
            line = times(self.node("Relu", [z], part=part), positive, "positive")
        elif np.all(positive == 1) and np.all(negative == negative[0]):
            slope = float(negative[0])
            line = self.node(*(("Identity", [z]) if slope == 1 else ("LeakyRelu", [z], {"alpha": slope})), part=part)
        else:
            line = self.node("Max", [times(z, positive, "positive"), times(z, negative, "negative")], part=part)
        if not exponential.any():
            return line
        zero = numbers(np.zeros(1), "zero")
        curve = self.node("Exp", [self.node("Clip", [z, None, zero], part=part)], part=part)
        if np.array_equal(constant, -exponential):  # before the product: near z = 0 it rounds less
            curve = self.node("Sub", [curve, numbers(np.ones(1), "one")], part=part)
            constant = np.zeros(1)
        h = self.node("Add", [line, times(curve, exponential, "exponential")], part=part)
        return self.node("Add", [h, numbers(constant, "constant")], part=part) if constant.any() else h

    def _name(self, part: str, last: str) -> str:
        return free_name("/".join(filter(None, (self.scope, part, last))), self._names)


def add_initializer(graph: ir.Graph, name: str, array: NDArray[Any]) -> ir.Value:
    """Add a constant under a name that is free, and return it."""
    tensor = ir.tensor(array, name=name)
    value = ir.Value(name=name, type=ir.TensorType(tensor.dtype), shape=ir.Shape(array.shape), const_value=tensor)
    graph.register_initializer(value)
    return value


def free_name(stem: str, taken: set[str]) -> str:
    """Return `stem`, or with a number behind it if that is taken, and take it."""
    name, number = stem, 1
    while name in taken:
        number += 1
        name = f"{stem}_{number}"
    taken.add(name)
    return name


def emitters(model: ir.Model) -> Iterator[tuple[ir.Node, MixedActivation, Emitter]]:
    """Yield each MixedActivation with an emitter in the scope of its layer; a layer called twice gets two scopes."""
    nodes = mixed_nodes(model)
    layers = [MixedActivation.of(node).scope for node in nodes]
    others = set(model.graph) - set(nodes)
    taken = {(node.name or "").rpartition("/")[0] for node in others}
    taken |= {scope.rpartition("/")[0] for scope in taken}  # scope/relu/Gather stands in the scope, too
    reserved = taken | set(layers)  # a second scope must not take the name of another layer
    for node, layer in zip(nodes, layers, strict=True):
        scope = free_name(layer, taken if layer not in taken else reserved)
        taken.add(scope)
        mixed = MixedActivation.of(node)  # read now: lowering the layer before it may have replaced its input
        assert mixed.z.dtype is not None
        yield node, mixed, Emitter(model.graph, scope, mixed.z.dtype)
