"""Data sets that need no download: scikit-learn's digits, and a user's own `.npz` file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from smx.arrays import read_arrays
from smx.data.dataset import Dataset, build
from smx.errors import InputError
from smx.limits import NAME

EXPECTED = "expected an .npz file with x (B, *) of numbers, y (B,) of whole numbers and, if wanted, names (classes,)"


def load_digits() -> Dataset:
    """Load scikit-learn's digits: 1797 images (8, 8), uint8 from 0 to 16, without an official test set."""
    from sklearn import datasets  # here, because scikit-learn takes a second to load

    raw = datasets.load_digits()
    pixels, names = raw.images.astype(np.uint8), tuple(map(str, raw.target_names))
    return build("digits", pixels, raw.target, maximum=16.0, class_names=names)


def load_npz(path: Path) -> Dataset:
    """Load a data set from `path`.

    Without `names`, the labels that occur are the names of the classes: they need not begin at 0, and may have gaps.

    The maximum, by which networks divide the values, is 255 for uint8, the largest magnitude for other integers, and 1
    for floating values.

    Raises:
        InputError: the file is missing or damaged, lacks an array, or its content is not usable.
    """
    content = read_arrays(path, EXPECTED)
    missing = {"x", "y"} - content.keys()
    if missing:
        raise InputError(f"{path} has no array {min(missing)}, only {', '.join(content) or 'nothing'}; {EXPECTED}")
    x, y, names = content["x"], content["y"], content.get("names")
    if y.ndim != 1 or not y.size or y.dtype.kind not in "iu":
        labels: tuple[str, ...] = ()  # build() says what is wrong with y
    elif names is None:
        found, y = np.unique(y, return_inverse=True)
        labels = tuple(map(str, found))
    else:
        labels = tuple(_text(name) for name in names.reshape(-1))
        if broken := [label for label in labels if label.encode(errors="ignore").decode() != label]:
            raise InputError(f"{path}: the entry {broken[0]!r} of names is no text in UTF-8; write it anew")
        if long := [label for label in labels if len(label) > NAME]:
            raise InputError(
                f"{path}: the entry {long[0][:20]!r}... of names has more than {NAME} characters; shorten it"
            )
        _check_named(path, y, labels)
    if len(labels) == 1 and y.shape == x.shape[:1]:
        raise InputError(
            f"{path}: all examples of y have the label {labels[0]}; a classifier needs two or more classes"
        )
    return build(str(path), x, y, maximum=_maximum(x), class_names=labels)


def _check_named(path: Path, y: NDArray[Any], names: tuple[str, ...]) -> None:
    """Refuse labels that have no name, and names that no example has."""
    if y.min() < 0 or y.max() >= len(names):
        raise InputError(
            f"{path}: names has {len(names)} entries, so y must lie between 0 and {len(names) - 1}, got {y.min()} to"
            f" {y.max()}; give names an entry for each class, or leave names out: the labels are then the names"
        )
    if absent := sorted({*range(len(names))} - {*np.unique(y).tolist()}):
        raise InputError(
            f"{path}: no example of y has the label {absent[0]}, whose entry in names is {names[absent[0]]!r}; remove"
            " names that no example has, and count the labels from 0 without gaps"
        )


def _maximum(x: NDArray[Any]) -> float:
    if x.dtype == np.uint8:
        return 255.0
    # Not the magnitudes of the array: that of the lowest number of a type is none of the type.
    return max(1.0, -float(x.min(initial=0)), float(x.max(initial=0))) if x.dtype.kind in "iu" else 1.0


def _text(name: Any) -> str:
    """Return the name of a class; old files hold bytes."""
    return name.decode(errors="surrogateescape") if isinstance(name, bytes) else str(name)
