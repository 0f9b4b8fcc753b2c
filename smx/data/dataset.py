"""What every data set becomes: checked arrays of raw values, split as in the paper."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from smx.errors import InputError

SPLIT_SEED = 42
"""Seed of the stratified splits; the author's code has the same."""
VALIDATION_SHARE = 0.1
"""Share of the training examples kept for validation (paper, section 4.1)."""
TEST_SHARE = 0.2
"""Share of all examples kept for the test where a data set has no official test set."""
_CHUNK = 4096


@dataclass(frozen=True)
class Split:
    """Raw examples (B, *) in their own shape, of an integer dtype or float32, and their class indices (B,)."""

    x: NDArray[Any]
    y: NDArray[np.int64]

    def __repr__(self) -> str:
        """Say how many examples there are, of what shape."""
        return f"Split({len(self.y)} of shape {tuple(self.x.shape[1:])}, {self.x.dtype})"

    def __len__(self) -> int:
        return len(self.y)


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """A classification data set in its three parts.

    Attributes:
        name: as given to `smx.data.load`.
        train, validation, test: the parts.
        maximum: raw values are divided by it where a network takes them; 255 for 8-bit pixels.
        class_names: one for each class, in the order of the class indices.
    """

    name: str
    train: Split
    validation: Split
    test: Split
    maximum: float
    class_names: tuple[str, ...]

    @property
    def sample_shape(self) -> tuple[int, ...]:
        """The shape of one example, for example (28, 28)."""
        return tuple(self.train.x.shape[1:])

    @property
    def signed(self) -> bool:
        """Whether some raw values are below 0."""
        return any(split.x.min(initial=0) < 0 for split in (self.train, self.validation, self.test))

    def fingerprint(self) -> str:
        """Return a SHA-256 over all examples, as networks take them, and labels: equal data have equal ones."""
        digest = hashlib.sha256()
        for split in (self.train, self.validation, self.test):
            for start in range(0, len(split), _CHUNK):
                digest.update((split.x[start : start + _CHUNK].astype(np.float32) / np.float32(self.maximum)).tobytes())
            digest.update(split.y.tobytes())
        return digest.hexdigest()


def build(
    name: str,
    x: NDArray[Any],
    y: NDArray[Any],
    *,
    test: tuple[NDArray[Any], NDArray[Any]] | None = None,
    maximum: float,
    class_names: tuple[str, ...],
) -> Dataset:
    """Check raw arrays and make the data set, split stratified by class.

    Args:
        name: see `Dataset`, as for `maximum` and `class_names`.
        x: (B, *), any real dtype; floating values are kept as float32.
        y: (B,), class indices 0 to the number of classes - 1.
        test: the official test set, in the same form; without one, `TEST_SHARE` of the examples is kept for it.

    Raises:
        InputError: shapes that don't match, labels out of range, values that are not finite, too few examples.
    """
    rest = _checked(f"{name}: ", x, y, x.shape[1:], len(class_names))
    if test is None:
        rest, tested = _stratified(name, rest, TEST_SHARE)
    else:
        tested = _checked(f"{name}: test ", *test, x.shape[1:], len(class_names))
    train, validation = _stratified(name, rest, VALIDATION_SHARE)
    return Dataset(name=name, train=train, validation=validation, test=tested, maximum=maximum, class_names=class_names)


def _stratified(name: str, split: Split, share: float) -> tuple[Split, Split]:
    from sklearn.model_selection import train_test_split  # here, because scikit-learn takes a second to load

    try:
        x_kept, x_taken, y_kept, y_taken = train_test_split(
            split.x, split.y, test_size=share, random_state=SPLIT_SEED, stratify=split.y
        )
    except ValueError as error:
        raise InputError(
            f"{name}: {len(split)} examples are too few to keep {share:.0%} of every class apart ({error})"
        ) from error
    return Split(x_kept, y_kept), Split(x_taken, y_taken)


def _checked(what: str, x: NDArray[Any], y: NDArray[Any], sample_shape: tuple[int, ...], classes: int) -> Split:
    if x.ndim < 2 or 0 in x.shape:
        raise InputError(f"{what}x must have the shape (examples, values, ...) and not be empty, got {x.shape}")
    if y.shape != (len(x),):
        raise InputError(f"{what}y must have one label for each of the {len(x)} examples of x, got shape {y.shape}")
    if x.shape[1:] != sample_shape:
        raise InputError(f"{what}x must have examples of shape {sample_shape}, got {x.shape[1:]}")
    if x.dtype.kind not in "iuf":  # to NumPy a timedelta is a whole number
        raise InputError(f"{what}x must hold numbers, got dtype {x.dtype}")
    if y.dtype.kind not in "iu":
        raise InputError(f"{what}y must hold class indices of an integer dtype, got {y.dtype}")
    with np.errstate(over="ignore"):
        x = x.astype(np.float32 if x.dtype.kind == "f" else x.dtype.newbyteorder("="), copy=False)
    if bad := np.count_nonzero(~np.isfinite(x)):
        raise InputError(f"{what}x holds {bad} values that are not finite in float32; remove them")
    if y.min() < 0 or y.max() >= classes:
        raise InputError(f"{what}y must lie between 0 and {classes - 1}, got {y.min()} to {y.max()}")
    return Split(x, y.astype(np.int64))
