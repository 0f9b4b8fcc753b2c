"""Class scores as people read them: probabilities, and a name for each class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


def softmax(scores: NDArray[Any]) -> NDArray[np.float64]:
    """Return the probabilities (B, C) of class scores (B, C); NaN where scores are infinite or NaN."""
    scores = scores.astype(np.float64)
    with np.errstate(invalid="ignore"):
        odds = np.exp(scores - scores.max(1, keepdims=True, initial=-np.inf))
        probabilities: NDArray[np.float64] = odds / odds.sum(1, keepdims=True)
    return probabilities


def names_of(count: int, known: Sequence[str]) -> tuple[str, ...]:
    """Return a name for each of `count` classes: the known ones if there are as many, or else numbers."""
    return tuple(known) if len(known) == count else tuple(map(str, range(count)))
