"""The formulas in NumPy float64, written from the paper and from the operators' definitions, not from smx."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx.reference import ReferenceEvaluator
from scipy.special import erf

Array = NDArray[np.float64]
SELU_ALPHA, SELU_SCALE = 1.6732632423543772848170429916717, 1.0507009873554804934193349852946


def _sigmoid(z: Array) -> Array:
    return 1 / (1 + np.exp(-z))


FUNCTIONS: dict[str, Callable[[Array], Array]] = {
    "relu": lambda z: np.where(z > 0, z, 0),
    "sigmoid": _sigmoid,
    "tanh": np.tanh,
    "leaky_relu": lambda z: np.where(z > 0, z, 0.01 * z),
    "elu": lambda z: np.where(z > 0, z, np.expm1(np.minimum(z, 0))),
    "selu": lambda z: SELU_SCALE * np.where(z > 0, z, SELU_ALPHA * np.expm1(np.minimum(z, 0))),
    "gelu": lambda z: z * 0.5 * (1 + erf(z / np.sqrt(2))),
    "silu": lambda z: z * _sigmoid(z),
    "mish": lambda z: z * np.tanh(np.log1p(np.exp(z))),
    "hardswish": lambda z: z * np.clip(z + 3, 0, 6) / 6,
    "identity": lambda z: z,
    "relu6": lambda z: np.clip(z, 0, 6),
    "hardtanh": lambda z: np.clip(z, -1, 1),
    "softplus": lambda z: np.logaddexp(z, 0),
    "softsign": lambda z: z / (1 + np.abs(z)),
}

DERIVATIVES: dict[str, Callable[[Array], Array]] = {
    "relu": lambda z: np.where(z > 0, 1.0, 0.0),
    "sigmoid": lambda z: _sigmoid(z) * (1 - _sigmoid(z)),
    "tanh": lambda z: 1 - np.tanh(z) ** 2,
    "leaky_relu": lambda z: np.where(z > 0, 1.0, 0.01),
    "elu": lambda z: np.where(z > 0, 1.0, np.exp(np.minimum(z, 0))),
    "selu": lambda z: SELU_SCALE * np.where(z > 0, 1.0, SELU_ALPHA * np.exp(np.minimum(z, 0))),
    "identity": np.ones_like,
}


def selective(
    z: Array, logits: Array, noise: Array, temperature: float, names: tuple[str, ...], g_h: Array
) -> tuple[Array, Array, Array]:
    """Return h, dL/dz and dL/dlogits for g_h = dL/dh; z and g_h (B, N), logits and noise (N, K)."""
    exponent = (logits + noise) / temperature
    y = np.exp(exponent - exponent.max(1, keepdims=True))
    y /= y.sum(1, keepdims=True)
    chosen = y.argmax(1)
    values = np.stack([FUNCTIONS[name](z) for name in names], axis=-1)  # (B, N, K)
    slopes = np.stack([DERIVATIVES[name](z) for name in names], axis=-1)
    neurons = np.arange(z.shape[1])
    h = values[:, neurons, chosen]
    g_z = g_h * slopes[:, neurons, chosen]
    g_s = (g_h[:, :, None] * values).sum(0)  # (N, K), for every k
    g_logits = y * (g_s - (g_s * y).sum(1, keepdims=True)) / temperature
    return h, g_z, g_logits


def mixed(z: NDArray[Any], choice: NDArray[np.int64], names: tuple[str, ...], axis: int = 1) -> Array:
    """Apply to each neuron its activation, one neuron at a time."""
    moved = np.moveaxis(z.astype(np.float64), axis, 0)
    h = np.stack([FUNCTIONS[names[k]](part) for k, part in zip(choice, moved, strict=True)])
    return np.moveaxis(h, 0, axis)


def evaluate_onnx(model: Any, **inputs: NDArray[Any]) -> NDArray[Any]:
    """Run a model (a path or a ModelProto) with one output in the ONNX reference evaluator."""
    evaluator: Any = ReferenceEvaluator(model)
    with np.errstate(over="ignore"):  # its Elu computes exp(x) of large x, too, and leaves it
        (output,) = evaluator.run(None, inputs)
    return np.asarray(output)
