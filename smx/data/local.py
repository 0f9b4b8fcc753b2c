"""Data sets that need no download: scikit-learn's digits, and a user's own `.npz` file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import load_digits as sklearn_digits

from smx.arrays import read_arrays
from smx.data.dataset import Dataset, build
from smx.errors import InputError

EXPECTED = "expected an .npz file with x (B, *) of numbers, y (B,) of class indices and, if wanted, names (classes,)"


def load_digits() -> Dataset:
    """Load scikit-learn's digits: 1797 images (8, 8), uint8 from 0 to 16, without an official test set."""
    raw = sklearn_digits()
    pixels, names = raw.images.astype(np.uint8), tuple(map(str, raw.target_names))
    return build("digits", pixels, raw.target, maximum=16.0, class_names=names)


def load_npz(path: Path) -> Dataset:
    """Load a data set from `path`.

    The maximum, by which networks divide the values, is 255 for uint8, the largest magnitude for other integers, and 1
    for floating values.

    Raises:
        InputError: the file is missing or damaged, lacks an array, or its content is not usable.
    """
    content = read_arrays(path, EXPECTED)
    missing = {"x", "y"} - content.keys()
    if missing:
        raise InputError(f"{path} has no array {min(missing)}, only {', '.join(content) or 'nothing'}; {EXPECTED}")
    x, y = content["x"], content["y"]
    if "names" in content:
        names = tuple(map(str, content["names"].reshape(-1)))
    elif np.issubdtype(y.dtype, np.integer) and y.size and y.max() < len(y):
        names = tuple(map(str, range(int(y.max()) + 1)))
    else:
        names = ("0",)  # build() says what is wrong with y
    return build(str(path), x, y, maximum=_maximum(x), class_names=names)


def _maximum(x: NDArray[Any]) -> float:
    if x.dtype == np.uint8:
        return 255.0
    return max(1.0, float(np.abs(x).max(initial=1))) if np.issubdtype(x.dtype, np.integer) else 1.0
