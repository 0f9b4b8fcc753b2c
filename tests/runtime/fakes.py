"""Models that are made in a moment."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

HEAD = '<ir_version: 10, opset_import: ["" : 21]> g '
PLUS_ONE = HEAD + "(float[batch,3] x) => (float[batch,3] y) <float[1] one = {1}> { y = Add(x, one) }"
PLUS_TWO = HEAD + "(float[batch,3] x) => (float[batch,3] y) <float[1] two = {2}> { y = Add(x, two) }"


def save(path: Path, text: str = PLUS_ONE) -> Path:
    """Write a model that is given as ONNX text."""
    import onnx

    onnx.save(onnx.parser.parse_model(text), path)
    return path


def save_wide(path: Path, values: int, **options: Any) -> Path:
    """Write a model with so many float32 weights."""
    import onnx

    model = onnx.parser.parse_model(HEAD + f"(float[batch,1] x) => (float[batch,{values}] y) {{ y = Mul(x, w) }}")
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.ones(values, np.float32), "w"))
    onnx.save(model, path, **options)
    return path
