"""scikit-learn's handwritten digits: 1797 real 8x8 images inside its package."""

from __future__ import annotations

import numpy as np
from sklearn.datasets import load_digits as sklearn_digits

from smx.data.dataset import Dataset, build


def load_digits() -> Dataset:
    """Load the digits, uint8 pixels of 0 to 16. They have no official test set: a stratified one is kept."""
    raw = sklearn_digits()
    pixels, names = raw.images.astype(np.uint8), tuple(map(str, raw.target_names))
    return build("digits", pixels, raw.target, maximum=16.0, class_names=names)
