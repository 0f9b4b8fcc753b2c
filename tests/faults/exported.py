"""An exported network that can be changed: where its neurons are in the file, and edits of its graph."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from torch import nn

from smx.layers import Mixed

Array = NDArray[Any]


@dataclass(frozen=True)
class Export:
    """A network, and what was exported of it; copies are changed.

    Attributes:
        module: in `eval()`.
        proto: what was exported.
        order: by the names of the layers, which neuron stands at each position in the file.
    """

    module: nn.Module
    proto: onnx.ModelProto
    order: dict[str, NDArray[np.int64]]

    @classmethod
    def of(cls, module: nn.Module, proto: onnx.ModelProto) -> Export:
        """Find the neurons again by their weights, which the exporter permutes and scales a little."""
        order: dict[str, NDArray[np.int64]] = {}
        written = {tensor.name: numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}
        columns: NDArray[np.int64] | slice = slice(None)
        for name, layer in module.named_modules():
            if isinstance(layer, nn.Linear | nn.Conv2d):
                found, known = (
                    w.reshape(len(w), -1) / np.linalg.norm(w.reshape(len(w), -1), axis=1, keepdims=True)
                    for w in (written[f"{name}.weight"], layer.weight.detach().numpy()[:, columns])
                )
                columns = order[name.split(".")[0]] = (found @ known.T).argmax(1)
        return cls(module, proto, order)

    def copy(self) -> Export:
        """Return a copy to plant a fault in, without the notes of shapes, which may no longer be right."""
        proto = onnx.ModelProto()
        proto.CopyFrom(self.proto)
        proto.graph.ClearField("value_info")
        return Export(copy.deepcopy(self.module), proto, self.order)

    def having(self, layer: str, *activations: str) -> list[int]:
        """Return the neurons of a layer that have one of these activations."""
        mixed = self.module.get_submodule(f"{layer}.activation")
        assert isinstance(mixed, Mixed)
        return [n for n, k in enumerate(mixed.choice.tolist()) if mixed.pool[k].name in activations]

    def at(self, layer: str, neurons: Iterable[int]) -> list[int]:
        """Return where neurons stand in the file."""
        return [self.order[layer].tolist().index(neuron) for neuron in neurons]

    @contextmanager
    def edited(self, name: str) -> Iterator[Array]:
        """Give the values of the initializer whose name begins and ends so ("layer1...bias"), to be changed."""
        start, _, end = name.partition("...")
        tensor = next(t for t in self.proto.graph.initializer if t.name.startswith(start) and t.name.endswith(end))
        values = numpy_helper.to_array(tensor).copy()
        yield values
        tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))

    @property
    def literal(self) -> bool:
        """Whether the layout is `scatter`: an operator for each activation, nothing moved into the weights."""
        return any(node.op_type == "ScatterElements" for node in self.proto.graph.node)

    @property
    def tanh(self) -> tuple[str, ...]:
        """The activations that are computed by Tanh."""
        return ("tanh",) if self.literal else ("tanh", "sigmoid")

    def set_hinges(self, layer: str, number: str, neurons: Iterable[int], value: float) -> None:
        """Set one of the numbers of a hinge; where they don't stand for all neurons, it is for the last ones."""
        with self.edited(f"{layer}/activation/...{number}") as numbers:
            start = len(self.order[layer]) - numbers.size
            numbers.reshape(-1)[[position - start for position in self.at(layer, neurons)]] = value

    def z(self, layer: str) -> str:
        """Return the name of a layer's pre-activations."""
        return self.node("Gemm", layer).output[0]

    def node(self, type: str, scope: str) -> onnx.NodeProto:
        """Return the first node of a type in a scope."""
        return next(n for n in self.proto.graph.node if n.op_type == type and n.name.startswith(scope))

    def insert(self, value: str, type: str, *others: str, **attributes: Any) -> None:
        """Let a node change a value before it is used."""
        nodes = self.proto.graph.node
        index, producer = next((i, n) for i, n in enumerate(nodes) if value in n.output)
        before = f"{value}/{len(nodes)}"
        producer.output[list(producer.output).index(value)] = before
        nodes.insert(index + 1, helper.make_node(type, [before, *others], [value], name=before, **attributes))

    def set_attribute(self, type: str, scope: str, name: str, value: Any) -> None:
        """Set an attribute of the first node of a type in a scope."""
        node = self.node(type, scope)
        kept = [attribute for attribute in node.attribute if attribute.name != name]
        node.ClearField("attribute")
        node.attribute.extend([*kept, helper.make_attribute(name, value)])

    def constant(self, name: str, values: Any) -> str:
        """Add an initializer and return its name."""
        self.proto.graph.initializer.append(numpy_helper.from_array(np.asarray(values), name))
        return name
