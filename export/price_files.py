"""Small networks from whose times the prices of `smx.prices` follow, in the very forms that the exporter writes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from smx import files
from smx.activations import get, known
from smx.export.capture import DOMAIN, OP_TYPE, attach, choose_forms
from smx.export.compiler import compile
from smx.export.emit import Emitter
from smx.export.opsets import oldest_ir_version
from smx.prices import BOTH, CURVES, ENDS, EXPONENTIAL, LINES, MIXTURE, PARTS, STACKED

OPSET = 18
TOGETHER = {LINES: ("leaky_relu", "relu"), CURVES: EXPONENTIAL, BOTH: ("leaky_relu", *EXPONENTIAL)}
"""Activations of a layer that is written in the common form."""


def write_price_files(
    folder: Path, widths: Sequence[int], names: Sequence[str], stacks: Sequence[int]
) -> dict[str, Path]:
    """Write the networks, and return their files by name.

    With f an activation, v and w widths. What is in brackets is what the network is there for; the other layers let
    it find its input where it finds it in a larger network, in memory that was just written.

        head w        Linear(w, 4)
        plain w       Linear(4, w), Linear(w, 4)
        dense v w     Linear(4, v), [Linear(v, w)], Linear(w, 4)
        fused f w     Linear(4, w), [f as ONNX's own operator], Linear(w, 4)
        split w       Linear(4, w), [Split into 2 parts, Concat], Linear(w, 4)
        parts w       Linear(4, w), [Split into 6 parts, Concat], Linear(w, 4)
        own f w       Linear(4, w), Split, Concat, [f as ONNX's own operator, with no Gemm before it], Linear(w, 4)
        shared f w    Linear(4, w), Split, Concat, [f in the common form], Linear(w, 4); also `TOGETHER`
        move w        Linear(4, w), ReLU of all, [Gather of half, ScatterElements], Tanh of these, Linear(w, 4)
        stack n       Linear(4, 384), [n times Linear(384, 384)], Linear(384, 4)
        mixed n       the same with `MIXTURE`, as `sorted` writes it, after each of these layers but the last
    """
    made = {f"head {w}": _Chain(w) for w in widths}
    for w in widths:
        made[f"plain {w}"] = _Chain().linear(w)
        made |= {f"dense {v} {w}": _Chain().linear(v).linear(w) for v in widths}
        for name in names:
            made[f"fused {name} {w}"] = _Chain().linear(w).mixed((name,), "operators")
            made[f"own {name} {w}"] = _Chain().linear(w).divided(2).mixed((name,), "operators")
        for name, pool in {**{name: (name,) for name in EXPONENTIAL}, **TOGETHER}.items():
            made[f"shared {name} {w}"] = _Chain().linear(w).divided(2).mixed(pool, "joined")
        made[f"split {w}"] = _Chain().linear(w).divided(2)
        made[f"parts {w}"] = _Chain().linear(w).divided(PARTS)
        made[f"move {w}"] = _Chain().linear(w).mixed(("relu", "tanh"), "in place")
    for count in {0, 1, *stacks}:
        made[f"stack {count}"], made[f"mixed {count}"] = _Chain(), _Chain()
        for _ in range(count + 1):
            made[f"stack {count}"].linear(STACKED)
            made[f"mixed {count}"].linear(STACKED).mixed(MIXTURE, "shared")
    return {name: chain.save(folder / f"{name}.onnx") for name, chain in made.items()}


class _Chain:
    """A network that is built layer by layer, with random weights."""

    def __init__(self, inputs: int = ENDS) -> None:
        self.graph = ir.Graph([], [], nodes=[], opset_imports={"": OPSET, DOMAIN: 1}, name="smartmixed")
        self.emit = Emitter(self.graph, "", ir.DataType.FLOAT)
        self.random = np.random.default_rng(0)
        self.width = inputs
        self.value = self._shaped(ir.Value(name="input"))
        self.graph.inputs.append(self.value)
        self.forms: dict[str, str] = {}

    def linear(self, neurons: int) -> _Chain:
        """Add a Linear layer."""
        weight = self.random.normal(0, self.width**-0.5, (self.width, neurons)).astype(np.float32)
        bias = self.random.normal(0, 0.1, neurons).astype(np.float32)
        part = str(len(self.emit.nodes))
        constants = [self.emit.constant(array, part=part, name=name) for array, name in ((weight, "w"), (bias, "b"))]
        self.width = neurons
        self.value = self._shaped(self.emit.node("Gemm", [self.value, *constants], part=part))
        return self

    def mixed(self, pool: Sequence[str], form: str) -> _Chain:
        """Add a mixed layer, with about as many neurons of each activation."""
        choice = (np.arange(self.width) * len(pool) // self.width).tolist()
        layer = f"layer{len(self.emit.nodes)}"
        how: dict[str, Any] = {"choice": choice, "pool": list(pool), "axis": 1, "layer": layer}
        node = ir.node(OP_TYPE, [self.value], how, domain=DOMAIN, name=layer)
        node.outputs[0].name = layer
        self.emit.nodes.append(node)
        self.value = self._shaped(node.outputs[0])
        self.forms[layer] = form
        return self

    def divided(self, parts: int) -> _Chain:
        """Add a Split and a Concat with nothing between them."""
        sizes = [len(part) for part in np.array_split(np.arange(self.width), parts)]
        names = [f"part{i}" for i in range(parts)]
        self.value = self._shaped(self.emit.apart(self.value, 1, sizes, names, lambda i, z: z))
        return self

    def save(self, path: Path) -> Path:
        """Add the last layer, compile, and write the file."""
        self.linear(ENDS)
        self.value.name = "output"
        self.graph.extend(self.emit.nodes)
        self.graph.outputs.append(self.value)
        model = ir.Model(self.graph, ir_version=oldest_ir_version(OPSET))
        attach(model, {name: expression for name in known() if (expression := get(name).onnx) is not None})
        choose_forms(model, self.forms)
        compile(model, "sorted")
        files.write_bytes(path, ir.to_proto(model).SerializeToString())
        return path

    def _shaped(self, value: ir.Value) -> ir.Value:
        value.shape, value.type = ir.Shape(["batch", self.width]), ir.TensorType(ir.DataType.FLOAT)
        return value
