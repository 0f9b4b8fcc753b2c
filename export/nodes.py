"""Read nodes: questions that several parts of the compiler ask."""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

SMALL = 1024
"""A layer known to have fewer values than this runs one Elu faster than the several operators of its form."""


def operand(node: ir.Node, index: int) -> ir.Value:
    """Return an input that the operator requires."""
    value = node.inputs[index]
    assert value is not None
    return value


def rank(value: ir.Value | None) -> int:
    """Return how many axes a value has; 0 if it is not known."""
    return len(value.shape) if value is not None and value.shape is not None else 0


def permutation(node: ir.Node) -> list[int]:
    """Return for each axis of a Transpose's output which axis of its input it is."""
    attribute = node.attributes.get("perm")
    return list(attribute.as_ints()) if attribute is not None else list(reversed(range(rank(node.inputs[0]))))


def constant(node: ir.Node, index: int) -> NDArray[np.int64] | None:
    """Return the value of an input; None if it is not there or not known."""
    value = node.inputs[index] if index < len(node.inputs) else None
    tensor = None if value is None else ir.convenience.get_const_tensor(value)
    return None if tensor is None else tensor.numpy()


def kept_axes(node: ir.Node) -> dict[int, int]:
    """Return the axes of the input that a Reduce operator keeps, each with its axis in the output; none if unknown."""
    axes, count = constant(node, 1), rank(node.inputs[0])
    if axes is None or not len(axes):
        return {}
    kept = sorted(set(range(count)) - {int(axis) % count for axis in axes})
    return dict(zip(kept, kept if node.attributes.get_int("keepdims", 1) else range(len(kept)), strict=True))


def is_small(shape: ir.Shape | None) -> bool:
    """Whether a value of this shape is known to be so small that the number of operators decides."""
    sizes = list(shape or ())
    return all(isinstance(size, int) for size in sizes) and math.prod(map(int, sizes)) < SMALL  # type: ignore[arg-type]
