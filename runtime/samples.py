"""Examples that a user gives, arrays and images, in the form that a model takes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from smx.arrays import COLOURS, as_taken, image_shape, read_arrays
from smx.errors import InputError, no_file
from smx.limits import VALUES
from smx.runtime.images import MAX_PIXELS, read_image
from smx.runtime.metadata import ModelInfo

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
EXPECTED = "expected a .npy or .npz file of examples, an image such as .png or .jpg, or a folder of images"


def load_samples(
    source: Path | NDArray[Any] | BinaryIO,
    sample_shape: Sequence[int],
    info: ModelInfo | None,
    *,
    invert: bool = False,
    raw: bool = False,
    unscaled: bool = False,
    max_pixels: int = MAX_PIXELS,
    left: dict[str, str] | None = None,
) -> tuple[list[str], NDArray[Any]]:
    """Read examples from a file or a folder, or take them from an array.

    1. Whole numbers are raw values: they are divided by the maximum of the data set.
    2. Floating numbers are taken as they are.
    3. Images become grey, or RGB if the data have three channels, get the size of the data, and values from 0 to 1.

    With `raw` the model normalises its input itself: whole numbers are taken as they are; floating numbers and images
    are multiplied by the maximum and rounded.

    Args:
        source: an array (B, *) or one example (*), as `.npy` file too; an `.npz` file with an array `x`, or with one
            array; an image, be it a path or an open file; a folder of images.
        sample_shape: what the model takes after the batch axis, for example (784,).
        info: of the model, for the size of its images and the range of its data; None for another tool's model.
        invert: images are dark on light, and the model knows light on dark.
        raw: the model takes uint8.
        unscaled: the model takes whole numbers of another type: they are not divided.
        max_pixels: of an image; larger ones are refused before they are decoded.
        left: gets the files of a folder that are no images that can be read, and why; None refuses the folder then.

    Returns:
        A name for each example, and the examples, (B, *sample_shape); B may be 0.

    Raises:
        InputError: the source can't be read, or its examples don't have the model's size.
    """
    name = str(source) if isinstance(source, Path) else "the array" if isinstance(source, np.ndarray) else "the image"
    names, x = _load(source, name, sample_shape, info, invert, max_pixels, left)
    known = info.maximum if info is not None else 1
    maximum = np.float32(255 if raw and known <= 1 else known)
    whole = x.dtype.kind in "iu"
    if raw:
        x = x if whole else np.rint(x * maximum)
        if x.size and (x.min() < 0 or x.max() > 255):
            raise InputError(f"{name} must hold values from 0 to {maximum:g}, got {x.min():g} to {x.max():g}")
        x = x.astype(np.uint8)
    elif whole and not unscaled:
        x = x.astype(np.float32) / maximum
    return names, x


def _load(
    source: Path | NDArray[Any] | BinaryIO,
    name: str,
    sample_shape: Sequence[int],
    info: ModelInfo | None,
    invert: bool,
    max_pixels: int,
    left: dict[str, str] | None,
) -> tuple[list[str], NDArray[Any]]:
    if isinstance(source, np.ndarray):
        x = _as_samples(name, source, sample_shape, info)
        return [str(i) for i in range(len(x))], x
    if not isinstance(source, Path):
        return [name], _image(source, name, sample_shape, info, invert, max_pixels)[None]
    if source.is_dir():
        found = {}
        for file in sorted(each for each in source.iterdir() if not each.is_dir()):
            if file.suffix.lower() not in IMAGE_SUFFIXES:
                if left is not None:
                    left[file.name] = f"{file} does not end in {', '.join(IMAGE_SUFFIXES)}"
                continue
            try:
                if not file.is_file():
                    raise InputError(no_file(file))
                found[file.name] = _image(file, str(file), sample_shape, info, invert, max_pixels)
            except InputError as error:
                if left is None:
                    raise
                left[file.name] = str(error)
        if not found:
            reason = next(iter((left or {"": "it has none"}).values()))
            raise InputError(f"{name} holds no images that can be read ({reason}); {EXPECTED}")
        return list(found), np.stack(list(found.values()))
    if not source.is_file():
        raise InputError(f"{no_file(source)}; {EXPECTED}")
    if source.suffix.lower() in IMAGE_SUFFIXES:
        return [source.name], _image(source, name, sample_shape, info, invert, max_pixels)[None]
    if source.suffix.lower() in (".npy", ".npz"):
        x = _as_samples(name, _array(source), sample_shape, info)
        return [f"{source.name}[{i}]" for i in range(len(x))], x
    raise InputError(f"{name} has an unknown ending; {EXPECTED}")


def _array(path: Path) -> NDArray[Any]:
    arrays = read_arrays(path, EXPECTED)
    if "x" not in arrays and len(arrays) != 1:
        raise InputError(f"{path} must have an array x, got {', '.join(arrays) or 'none'}")
    return arrays["x"] if "x" in arrays else next(iter(arrays.values()))


def _as_samples(name: str, x: NDArray[Any], sample_shape: Sequence[int], info: ModelInfo | None) -> NDArray[Any]:
    """Bring (B, *) or one example (*) to (B, *sample_shape), through the shape of the data's examples, if known."""
    size = math.prod(sample_shape)
    shape = info.sample_shape if info is not None and math.prod(info.sample_shape) == size else sample_shape
    if x.dtype.kind not in "iuf":  # to NumPy a timedelta is a whole number
        raise InputError(f"{name} must hold numbers, got dtype {x.dtype}")
    if x.dtype.kind == "f" and not np.isfinite(x).all():
        raise InputError(f"{name} holds {np.count_nonzero(~np.isfinite(x))} values that are not finite; remove them")
    for examples in (x, x[None]):
        if examples.ndim and math.prod(examples.shape[1:]) == size:
            return as_taken(as_taken(examples, shape), sample_shape)
    raise InputError(f"{name} must hold examples of {size} values (shape {tuple(sample_shape)}), got shape {x.shape}")


def _image(
    source: Path | BinaryIO,
    name: str,
    sample_shape: Sequence[int],
    info: ModelInfo | None,
    invert: bool,
    max_pixels: int,
) -> NDArray[np.float32]:
    """Read an image in the shape of the data's examples, and bring it to (*sample_shape)."""
    shape = tuple(info.sample_shape) if info is not None and info.sample_shape else tuple(sample_shape)
    channels, *size = image_shape(shape) or (0,)
    if len(size) != 2 or channels not in COLOURS or not math.prod(shape) == math.prod(sample_shape) <= VALUES:
        raise InputError(f"{name} is an image, but the model takes examples of shape {shape}; give it an array")
    pixels = read_image(source, *size, colour=channels == 3, invert=invert, name=name, max_pixels=max_pixels)
    example: NDArray[np.float32] = as_taken(as_taken(pixels.reshape(1, *size, channels), shape), sample_shape)[0]
    return example
