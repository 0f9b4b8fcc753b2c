"""Small models of all kinds, as ONNX text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from tests.runtime.fakes import HEAD

PLAIN = "(float[b,4] x) => (float[b,3] y) { y = MatMul(x, w) }"
WEIGHTS = {"w": np.random.default_rng(1).standard_normal((4, 3)).astype(np.float32)}
PAIR = (
    "(float[b,2] u, int64[b,3] v) => (float[b,2] p, int64[b,3] q) <int64[1] one = {1}> { p = Neg(u) q = Add(v, one) }"
)
OPEN = "(float[b,n] x) => (float[b,1] y) <int64[1] axes = {1}> { y = ReduceSum(x, axes) }"
FIXED = "(float[4,3] x) => (float[4,3] y) { y = Neg(x) }"
SCALAR = "(float[] x) => (float[] y) { y = Neg(x) }"
SIZED = "(int64[1] n) => (float[m] y) { y = ConstantOfShape(n) }"
TOO_MANY = 2**50
"""Values for `SIZED` that no memory holds."""
EMBEDDING = "(int64[b,2] x) => (float[b,2,3] y) { y = Gather(w, x) }"
TABLE = {"w": np.arange(15, dtype=np.float32).reshape(5, 3)}
LSTM = """(float[b,5,3] x) => (float[b,2] y) <int64[1] first = {0}> {
    t = Transpose <perm = [1, 0, 2]> (x)  all, h = LSTM <hidden_size = 2> (t, w, r)  y = Squeeze(h, first)
}"""
LSTM_WEIGHTS = {
    "w": np.random.default_rng(2).standard_normal((1, 8, 3)).astype(np.float32),
    "r": np.random.default_rng(3).standard_normal((1, 8, 2)).astype(np.float32),
}


def make(path: Path, text: str = PLAIN, weights: dict[str, NDArray[Any]] | None = None) -> Path:
    """Write a model; `PLAIN` has its weights of itself."""
    model = onnx.parser.parse_model(HEAD + text)
    for name, array in (WEIGHTS if text is PLAIN and weights is None else weights or {}).items():
        model.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, path)
    return path
