"""Rewrite weights in float64, when they are needed, one at a time.

Passes change weights by functions of float64 arrays. The functions are kept and applied when the weight is needed. So
the changes of several passes are rounded once, and a large model is never held twice.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from smx.export.emit import free_name
from smx.export.nodes import operand

Exact = NDArray[np.float64]
Formula = Callable[[], Exact]

_FORMULA = "smx.formula"


def is_weight(value: ir.Value | None) -> bool:
    """Whether a value is a constant array of floating numbers."""
    return value is not None and value.const_value is not None and value.const_value.dtype.is_floating_point()


def formula(value: ir.Value) -> Formula:
    """Return a function that computes a weight with the changes made so far, not with later ones."""
    kept: Formula | None = value.meta.get(_FORMULA)
    tensor = value.const_value
    assert tensor is not None
    return kept or (lambda: tensor.numpy().astype(np.float64))


def rewrite(value: ir.Value, function: Callable[[Exact], Exact]) -> None:
    """Replace an initializer that nothing else uses, see `own`, by a function of its float64 array; the shape stays."""
    before = formula(value)
    value.meta[_FORMULA] = after = lambda: function(before())
    _replace(value, after)


def permute(value: ir.Value, indices: NDArray[np.int64], axis: int) -> None:
    """Reorder a constant that was not rewritten, of any dtype, along an axis: entry i is what `indices[i]` was."""
    old = value.const_value
    assert old is not None
    _replace(value, lambda: np.take(old.numpy(), indices, axis))


def _replace(value: ir.Value, array: Callable[[], NDArray[Any]]) -> None:
    """Let a constant be an array of the same shape, rounded to the same dtype when it is needed."""
    old = value.const_value
    assert old is not None
    dtype, name = old.dtype, value.name
    value.const_value = ir.LazyTensor(
        lambda: ir.tensor(array().astype(dtype.numpy()), name=name),
        dtype=dtype,
        shape=ir.Shape(old.shape.numpy()),
        name=name,
    )


def own(graph: ir.Graph, node: ir.Node, index: int) -> ir.Value:
    """Return an input of a node that is a weight; if other nodes use it too, the node gets a copy first."""
    value = operand(node, index)
    if len(value.uses()) == 1 and not value.is_graph_output():
        return value
    taken = set(graph.initializers)
    copy = ir.Value(name=free_name(value.name or "weight", taken), type=value.type, shape=value.shape)
    copy.const_value = value.const_value
    copy.meta.update(value.meta)
    graph.register_initializer(copy)
    node.replace_input_with(index, copy)
    return copy
