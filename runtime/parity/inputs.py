"""Inputs for tests that no data set has: random values and extremes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

LARGE, DENORMAL = np.float32(1e4), np.float32(1e-40)


def synthetic_inputs(
    shape: Sequence[int], *, maximum: int | None = None, seed: int = 0, examples: int = 128
) -> dict[str, NDArray[Any]]:
    """Return random and extreme inputs by name; the same seed gives the same inputs.

    Values at the kinks of the activations depend on the weights: `smx.hooks.kinks` finds them.

    Args:
        shape: of one example.
        maximum: of a model that takes uint8 values from 0 to `maximum`; None gives float32.
        seed: of the random values.
        examples: of each set but "large", which has two.

    Returns:
        Arrays (examples, *shape).
    """
    random = np.random.default_rng(seed)
    full = (examples, *shape)
    if maximum is not None:
        return {
            "random": random.integers(0, maximum, full, np.uint8, endpoint=True),
            "zeros": np.zeros(full, np.uint8),
            "largest": np.full(full, maximum, np.uint8),
        }
    uniform = random.uniform(-1.0, 1.0, full).astype(np.float32)
    signs = np.where(uniform < 0, np.float32(-1), np.float32(1))
    return {
        "random": uniform,
        "zeros": np.zeros(full, np.float32),
        "large": np.stack([np.full(shape, LARGE), np.full(shape, -LARGE)]),
        "large mixed": LARGE * signs,
        "denormal": DENORMAL * signs,
    }
