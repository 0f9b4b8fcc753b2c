"""BatchNorm and constants disappear into the weights next to them."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from smx.export.affine import Affine, RefusedError, bias_of, into_consumers, into_producer
from smx.export.nodes import operand
from smx.export.passes.base import Rewriting
from smx.export.weights import formula, is_weight


class FoldAffine(Rewriting):
    """Fold y = scale * x + shift, one pair of numbers a channel, into the weights next to it.

    Case 1, into what computes x:  scale (W x + b) + shift  =  (scale W) x + (scale b + shift)
    Case 2, into what uses y:      W (scale x + shift) + b  =  (W scale) x + (b + W shift)
    Case 3: neither is possible, for example since zeros are padded in between, or something else uses the values. The
    map stays, and `refusals` says why.

    BatchNormalization in inference is such a map, with scale = gamma / sqrt(variance + epsilon) and
    shift = beta - mean scale; so are Mul, Div, Add and Sub with a constant.

    Args:
        shifts: allow case 2 for maps with a shift, see `MergeGroups`.
    """

    def __init__(self, *, shifts: bool = True) -> None:
        super().__init__()
        self.shifts = shifts

    def rewrite(self, model: ir.Model) -> None:
        """Fold until nothing changes: a map that is gone may have stood in the way of another."""
        while sum(self._fold(model.graph, node) for node in list(model.graph)):
            self.refusals.clear()

    def _fold(self, graph: ir.Graph, node: ir.Node) -> bool:
        found = _affine(node)
        if found is None:
            return False
        x, axis, affine = found
        y = node.outputs[0]
        try:
            changes = into_producer(graph, x, axis, affine)  # case 1
        except RefusedError as before:
            try:
                if affine.shifts and not self.shifts:
                    raise RefusedError("shifts don't move into what comes after them, for precision") from None
                changes = into_consumers(graph, y, axis, affine)  # case 2
            except RefusedError as after:  # case 3
                if any(value is not None and is_weight(value) and value.shape for value in node.inputs):
                    self.refusals[node.name or node.op_type] = f"{before}, and {after}"
                return False
        for change in changes:
            change()
        if y.is_graph_output():
            x.name, y.name = y.name, f"{y.name}/folded"
        ir.convenience.replace_all_uses_with(y, x, replace_graph_outputs=True)
        graph.remove(node, safe=True)
        self.applied += 1
        return True


def _affine(node: ir.Node) -> tuple[ir.Value, int, Affine] | None:
    """Read a node as a map of one of its inputs: that input, the axis of the channels, and the map.

    None if it is no such map: a number is not finite, a scale is 0, or the input has another shape than the output.
    """
    y, axis = node.outputs[0], 1
    if y.shape is None or len(y.shape) < 2:
        return None
    if node.op_type == "BatchNormalization":
        if node.attributes.get_int("training_mode", 0) or not all(map(is_weight, node.inputs[1:])):
            return None
        x = operand(node, 0)
        gamma, beta, mean, variance = (formula(operand(node, i))() for i in range(1, 5))
        scale = gamma / np.sqrt(variance + node.attributes.get_float("epsilon", 1e-5))
        shift = beta - mean * scale
    elif node.op_type in ("Mul", "Div", "Add", "Sub"):
        index = next((i for i in (1, 0) if is_weight(node.inputs[i])), None)
        if index is None or (index == 0 and node.op_type in ("Div", "Sub")):
            return None
        x, constant = operand(node, 1 - index), operand(node, index)
        producer = getattr(x.producer(), "op_type", None)
        if (node.op_type, producer) == ("Add", "MatMul"):
            return None  # the bias of a linear layer
        if constant.shape:
            axes = [axis for axis in range(1, len(y.shape)) if bias_of(node, axis) == index]
        else:  # the same for every channel, whichever axis they are on
            axes = [1 if producer == "Conv" else len(y.shape) - 1]
        channels = y.shape[axes[0]] if axes else None
        if not isinstance(channels, int):
            return None
        axis, values = axes[0], np.broadcast_to(formula(constant)().reshape(-1), channels)
        scale, shift = np.ones(channels), np.zeros(channels)
        if node.op_type in ("Mul", "Div"):
            with np.errstate(divide="ignore"):
                scale = values if node.op_type == "Mul" else 1 / values
        else:
            shift = values if node.op_type == "Add" else -values
    else:
        return None
    usable = np.isfinite(scale).all() and np.isfinite(shift).all() and np.all(scale != 0)
    return (x, axis, Affine(scale, shift)) if usable and x.shape == y.shape else None
