"""External data: the weights of a model above 2 GB, the limit of a protobuf message, in a file beside the model's."""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import onnx_ir as ir

from smx.ending import eventually
from smx.errors import SmxError

LARGE = 2**31 - 2**24
"""Models with at least this many bytes of weights have them in a file of their own."""


def is_large(model: ir.Model) -> bool:
    """Whether the weights need a file of their own."""
    weights = (value.const_value for value in model.graph.initializers.values())
    return sum(weight.nbytes for weight in weights if weight is not None) >= LARGE


@contextmanager
def external_weights(model: ir.Model, path: Path) -> Iterator[Path | None]:
    """Write the weights of a large model to a file of a new name beside `path`, and yield it; None for other models.

    The caller writes the new model to `path` inside the context. Until then the old model and its weights stay as they
    are; at the end the file of weights that no model refers to is removed.

    Raises:
        SmxError: writing failed, for example because the disk is full.
    """
    old = _beside(path)
    new = path.with_name(f"{path.name}.{secrets.token_hex(4)}.data") if is_large(model) else None

    def remove() -> None:
        for file in {*old, *([new] if new else [])} - {*_beside(path)}:
            file.unlink(missing_ok=True)

    with eventually(remove):
        try:
            if new:
                # What is small stays: shape inference reads the sizes of Split and the shapes of Reshape.
                ir.external_data.unload_from_model(model, path.parent, new.name, size_threshold_bytes=1024)
            yield new
        except OSError as error:
            raise SmxError(f"{path} could not be written: {error.strerror or error}") from error


def _beside(path: Path) -> list[Path]:
    """Return the files of weights that the model at `path` refers to, if this exporter named them."""
    ours = re.compile(re.escape(path.name) + r"\.[0-9a-f]{8}\.data")
    there = [file for file in path.parent.iterdir() if ours.fullmatch(file.name)]
    content = path.read_bytes() if there and path.is_file() else b""
    return [file for file in there if file.name.encode() in content]
