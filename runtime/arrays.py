"""Reading `.npy` and `.npz` files that a user gives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from smx.errors import InputError, one_line


def read_arrays(path: Path, expected: str) -> dict[str, NDArray[Any]]:
    """Read all arrays of a file, by name; the one of an `.npy` file is called x. Nothing in it is run.

    Args:
        path: of the file.
        expected: what the file should be, for the message.

    Raises:
        InputError: the file is missing or damaged, or holds Python objects.
    """
    if path.is_dir():
        raise InputError(f"{path} is a folder; {expected}")
    if not path.is_file():
        raise InputError(f"{path} does not exist; {expected}")
    try:
        with path.open("rb") as file:
            content = np.load(file, allow_pickle=False)
            if isinstance(content, np.ndarray):
                return {"x": content}
            return {name: content[name] for name in content.files}
    except Exception as error:  # whatever a damaged file makes zipfile, zlib and numpy run into
        reason = one_line(error) or type(error).__name__
        if "pickle" in reason:  # numpy's advice would be to run it
            reason = "it is another kind of file, or holds Python objects"
        raise InputError(f"{path} can't be read ({reason}); {expected}") from error
