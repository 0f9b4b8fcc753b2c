"""Read nodes: questions that several parts of the compiler ask."""

from __future__ import annotations

import math

import onnx_ir as ir

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


def kept_axes(node: ir.Node) -> dict[int, int] | None:
    """Return the axes of the input that a Reduce operator keeps, each with its axis in the output.

    None if the reduced axes are not known, or not given, which may mean all of them.
    """
    (x, *rest), attribute = node.inputs, node.attributes.get("axes")
    constant = ir.convenience.get_const_tensor(rest[0]) if rest and rest[0] is not None else None
    if attribute is None and constant is None:
        return None
    axes = attribute.as_ints() if attribute is not None else constant.numpy().tolist()  # type: ignore[union-attr]
    gone = {axis % rank(x) for axis in axes}
    if not gone:
        return None
    kept = [axis for axis in range(rank(x)) if axis not in gone]
    return dict(zip(kept, kept if node.attributes.get_int("keepdims", 1) else range(len(kept)), strict=True))


def is_small(shape: ir.Shape | None) -> bool:
    """Whether a value of this shape is known to be so small that the number of operators decides."""
    sizes = list(shape or ())
    return all(isinstance(size, int) for size in sizes) and math.prod(map(int, sizes)) < SMALL  # type: ignore[arg-type]
