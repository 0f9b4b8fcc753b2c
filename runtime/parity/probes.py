"""Inputs that no data set has: random ones and extremes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


def probes(shape: Sequence[int], *, seed: int = 0, examples: int = 128) -> dict[str, NDArray[np.float32]]:
    """Return random and extreme inputs by name, float32 (examples, *shape); "large" has two examples.

    The same seed gives the same inputs. Values at the kinks of the activations depend on the weights: `smx.hooks.kinks`
    finds them.
    """
    random = np.random.default_rng(seed)
    full = (examples, *shape)
    uniform = random.uniform(-1.0, 1.0, full).astype(np.float32)
    signs = np.where(uniform < 0, np.float32(-1), np.float32(1))
    return {
        "random": uniform,
        "zeros": np.zeros(full, np.float32),
        "large": np.stack([np.full(shape, sign * 1e4, np.float32) for sign in (1, -1)]),
        "large mixed": signs * np.float32(1e4),
        "denormal": signs * np.float32(1e-40),
    }


def raw_probes(shape: Sequence[int], maximum: int, *, seed: int = 0, examples: int = 128) -> dict[str, NDArray[Any]]:
    """Return the like of `probes` for a model that takes uint8 (examples, *shape) from 0 to `maximum`."""
    random = np.random.default_rng(seed)
    full = (examples, *shape)
    return {
        "random": random.integers(0, maximum, full, np.uint8, endpoint=True),
        "zeros": np.zeros(full, np.uint8),
        "largest": np.full(full, maximum, np.uint8),
    }
