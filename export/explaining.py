"""Why PyTorch's exporter can't convert a network, in one line that names the place and what to do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from smx.calling import Flat
from smx.errors import one_line
from smx.export.places import attention_at, place_of


def explained(
    error: Exception,
    flat: Flat,
    marked: Flat,
    example: tuple[Tensor, ...],
    axes: Sequence[Mapping[int, Any]],
) -> str:
    """Return the message for an error of PyTorch's exporter.

    Args:
        error: what it raised.
        flat: the network.
        marked: the copy of it that was to be converted.
        example: on which it was traced.
        axes: the dynamic axes of each input; of the first one of these the exporter may speak.
    """
    cause = error.__cause__ or error
    text, kind = str(cause), type(cause).__name__
    start = _start(flat)
    where = place_of(error, marked)
    if "DataDependent" in kind or "data-dependent" in text:
        return f"{start}: {where or 'somewhere'} it branches on values, which no file can do; use torch.where"
    if "static shape" in text or "specialized it to be a constant" in text:
        for key, own in zip(flat.names, axes, strict=True):
            for axis, dim in own.items():
                name = dim if isinstance(dim, str) else "batch"
                size = example[flat.names.index(key)].shape[axis]
                if f"static shape of {size}" in text or f"{name} was" in text:
                    return constant(flat, key, axis, dim, size, where)
    if "scaled_dot_product_attention" in text and (found := attention_at(flat, example)):
        return (
            f"{start}: scaled_dot_product_attention {found} gets values that have not 4 axes; reshape them to"
            " (batch, heads, tokens, features), if they have 3 by q.unsqueeze(1)"
        )
    lines = [*text.splitlines(), *reversed(str(error).splitlines()), kind]
    reason = one_line(next(line for line in lines if line.strip()))
    return f"{start}: {reason}{where and ' '}{where}"


def constant(flat: Flat, key: str, axis: int, dim: Any, size: int, where: str = "") -> str:
    """Return the message for a dynamic axis that has become a constant: a name or a `Dim` on an axis of an input."""
    name = dim if isinstance(dim, str) else "batch"
    alone = f"batch={size}" if name == "batch" else f"without {name} in dynamic"
    return (
        f"{_start(flat)}: its forward takes {name}, axis {axis} of {key}, for the constant {size}"
        f"{where and ' '}{where}; compute it with tensors instead of Python loops, or export it for this length"
        f" alone, {alone}"
    )


def _start(flat: Flat) -> str:
    return f"PyTorch's exporter can't convert {type(flat.module).__name__}"
