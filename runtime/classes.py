"""Class scores as people read them: probabilities, and a name for each class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from smx.errors import InputError

ROUNDING = 1 / 512
"""How far a probability may be from the true one: half a step of a model that is quantized to 8 bits."""
MOST_ROUNDING = 1 / 8
"""How far the sum of very many of them may be from 1."""


def softmax(scores: NDArray[Any]) -> NDArray[np.float64]:
    """Return the probabilities (B, C) of class scores (B, C); NaN where scores are infinite or NaN."""
    scores = scores.astype(np.float64)
    with np.errstate(invalid="ignore"):
        odds = np.exp(scores - scores.max(1, keepdims=True, initial=-np.inf))
        probabilities: NDArray[np.float64] = odds / odds.sum(1, keepdims=True)
    return probabilities


def probabilities(scores: NDArray[Any]) -> NDArray[np.float64]:
    """Return the probabilities (B, C) of what a classifier puts out (B, C): scores, or probabilities already.

    Rows that all are 0 or more and sum to 1, but for rounding, are probabilities; another softmax would bring them
    close to each other.

    Raises:
        InputError: C is 0 or 1: one column may be a score, a probability or a value, and a softmax of it is always 1;
            or a row has NaN, or no largest score that is finite.
    """
    if scores.shape[1] < 2:
        count = ("no output column", "one output column")[scores.shape[1]]
        raise InputError(f"it has {count}, which names no classes; expected one for each class, two or more")
    check_scores(scores)
    given = scores.astype(np.float64)
    rounding = min(ROUNDING * given.shape[1], MOST_ROUNDING)
    if len(given) and (given >= 0).all() and (np.abs(given.sum(1) - 1) <= rounding).all():
        given /= given.sum(1, keepdims=True)
        return given
    return softmax(scores)


def check_scores(scores: NDArray[Any]) -> None:
    """Refuse scores (B, C), C at least 1, of which a row names no class.

    Raises:
        InputError: a row has NaN, or no largest score that is finite.
    """
    if (bad := np.flatnonzero(~np.isfinite(scores.max(1)))).size:
        row = ", ".join(map(str, scores[bad[0]][:5].astype(np.float64)))
        raise InputError(f"its scores of example {bad[0]} are {row}, which name no class")


def names_of(count: int, known: Sequence[str]) -> tuple[str, ...]:
    """Return a name for each of `count` classes: the known ones if there are as many, or else numbers."""
    return tuple(known) if len(known) == count else tuple(map(str, range(count)))
