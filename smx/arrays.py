"""Arrays that a user gives: reading them from files, and bringing them to the shape that a network takes."""

from __future__ import annotations

import math
import os
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from smx.errors import InputError, no_file, one_line

Examples = TypeVar("Examples", bound=Any)
UNFOLDED, MOST_TIMES = 2**27, 64
"""Bytes, and multiples of a file's own, to which a compressed file may unfold."""
COLOURS = (1, 3)
"""An axis of this length at either end of an image is that of its channels: grey, or red, green and blue."""


def image_shape(shape: Sequence[int]) -> tuple[int, ...]:
    """Return the shape in which networks take examples of this shape: (C, H, W) for what looks like an image.

    (H, W) counts as a grey image, (1, H, W), be it one or a sequence (T, F); (H, W, C) with C of 1 or 3 becomes
    (C, H, W), unless it begins with such an axis. All other shapes stay.
    """
    if len(shape) == 2:
        return (1, *shape)
    return (shape[2], *shape[:2]) if is_channels_last(shape) else tuple(shape)


def is_channels_last(shape: Sequence[int]) -> bool:
    """Tell whether an example of this shape is (H, W, C) rather than (C, H, W)."""
    return len(shape) == 3 and shape[2] in COLOURS and shape[0] not in COLOURS


def as_taken(x: Examples, input_shape: Sequence[int]) -> Examples:
    """Bring an array or tensor (B, *) to (B, *input_shape): an image's channels move where the network takes them.

    Everything else, such as (B, H, W) for a network that takes (H * W,) or (1, H, W), is the same values in the same
    order.

    Raises:
        InputError: the examples have more or fewer values.
    """
    given, wanted = tuple(x.shape[1:]), tuple(input_shape)
    if math.prod(given) != math.prod(wanted):
        raise InputError(f"expected examples of shape {wanted}, got {given}")
    if len(given) == len(wanted) == 3 and given != wanted:
        if (given[2], *given[:2]) == wanted:
            x = x.swapaxes(1, 3).swapaxes(2, 3)
        elif (*given[1:], given[0]) == wanted:
            x = x.swapaxes(1, 3).swapaxes(1, 2)
    taken: Examples = x.reshape(-1, *wanted)
    return cast("Examples", np.ascontiguousarray(taken)) if isinstance(taken, np.ndarray) else taken


def _check_size(file: BinaryIO) -> None:
    """Refuse an archive whose members unfold to far more than its bytes."""
    if zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as archive:
            size, unfolded = file.seek(0, os.SEEK_END), sum(member.file_size for member in archive.infolist())
        if unfolded > max(UNFOLDED, MOST_TIMES * size):
            raise ValueError(
                f"its {size} bytes would unfold to {unfolded}; write arrays of so few different values by np.savez,"
                " which does not compress"
            )
    file.seek(0)


def read_arrays(path: Path, expected: str) -> dict[str, NDArray[Any]]:
    """Read all arrays of a file, by name; the one of an `.npy` file is called x. Nothing in it is run.

    Raises:
        InputError: the file is missing or damaged, or holds Python objects; the message ends with `expected`.
    """
    if path.is_dir():
        raise InputError(f"{path} is a folder; {expected}")
    if not path.is_file():
        raise InputError(f"{no_file(path)}; {expected}")
    try:
        with path.open("rb") as file:
            _check_size(file)
            content = np.load(file, allow_pickle=False)
            if isinstance(content, np.ndarray):
                return {"x": content}
            return {name: content[name] for name in content.files}
    except Exception as error:  # whatever a damaged file makes zipfile, zlib and numpy run into
        reason = one_line(error)
        if "pickle" in reason:  # numpy's advice would be to run it
            reason = "it is another kind of file, or holds Python objects"
        raise InputError(f"{path} can't be read ({reason}); {expected}") from error
