"""A user's own data: an `.npz` file with x, y and, if wanted, names."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np

from smx.data.dataset import Dataset, build
from smx.errors import InputError

EXPECTED = "expected an .npz file with x (B, *) of numbers, y (B,) of class indices and, if wanted, names (classes,)"


def load_npz(path: Path) -> Dataset:
    """Load a data set from `path`; uint8 values are divided by 255, others are taken as they are.

    Raises:
        InputError: the file is missing or damaged, lacks an array, or its content is not usable.
    """
    if not path.is_file():
        raise InputError(f"{path} does not exist; {EXPECTED}")
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            content = {key: arrays[key] for key in arrays.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, AttributeError) as error:
        raise InputError(f"{path} can't be read ({str(error).splitlines()[0]}); {EXPECTED}") from error
    missing = {"x", "y"} - content.keys()
    if missing:
        raise InputError(f"{path} has no array {min(missing)}, only {', '.join(content) or 'nothing'}; {EXPECTED}")
    x, y = content["x"], content["y"]
    if "names" in content:
        names = tuple(map(str, content["names"].reshape(-1)))
    elif np.issubdtype(y.dtype, np.integer) and y.size:
        names = tuple(map(str, range(int(y.max()) + 1)))
    else:
        names = ()  # build() says what is wrong with y
    maximum = 255.0 if x.dtype == np.uint8 else 1.0
    return build(str(path), x, y, maximum=maximum, class_names=names)
