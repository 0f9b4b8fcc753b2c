"""scikit-learn's handwritten digits: 1797 real 8x8 images inside its package."""

from __future__ import annotations

from sklearn.datasets import load_digits as sklearn_digits

from smx.data.dataset import Dataset, build


def load_digits() -> Dataset:
    """Load the digits; pixels of 0 to 16 are divided by 16. There is no official test set: a stratified one is kept."""
    raw = sklearn_digits()
    return build("digits", raw.images, raw.target, maximum=16.0, class_names=tuple(map(str, raw.target_names)))
