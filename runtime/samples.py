"""What users give to predict: arrays and images, made into what a model takes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from smx.arrays import as_taken, read_arrays
from smx.errors import InputError
from smx.runtime.metadata import ModelInfo

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg")
EXPECTED = "expected a .npy or .npz file of examples, a .png or .jpg image, or a folder of images"


def load_samples(
    path: Path | NDArray[Any],
    sample_shape: Sequence[int],
    info: ModelInfo | None,
    *,
    invert: bool = False,
    raw: bool = False,
) -> tuple[list[str], NDArray[Any]]:
    """Read examples from `path`, or take them from an array.

    Whole numbers are raw values and are divided by the data set's maximum; floating numbers are taken as they are.
    Images become grey (or RGB, if the data had three channels), get the data's size and values from 0 to 1, and lose
    their transparency against black, or with `invert` against white. With `raw` it is the other way round: whole
    numbers are taken as they are, floating ones and images are multiplied by the maximum and rounded.

    Args:
        path: `.npy` (B, *) or one example; `.npz` with an array `x`, or a single one; an image; a folder of images; or
            an array as an `.npy` file holds it.
        sample_shape: what the model takes after the batch axis, for example (784,).
        info: of the model, for the size of its images and the range of its data; None for another tool's model.
        invert: images are dark on light, and the model knows light on dark.
        raw: the model takes uint8, and normalises itself.

    Returns:
        A name for each example, and the examples, (B, *sample_shape).

    Raises:
        InputError: the path can't be read, or its examples don't have the model's size.
    """
    names, x = _load(path, sample_shape, info, invert)
    maximum = np.float32(info.maximum if info is not None else 255 if raw else 1)
    whole = bool(np.issubdtype(x.dtype, np.integer))
    if raw:
        x = x if whole else np.rint(x * maximum)
        if x.min(initial=0) < 0 or x.max(initial=0) > 255:
            raise InputError(f"{_name(path)} must hold values from 0 to {maximum:g}, got {x.min():g} to {x.max():g}")
        x = x.astype(np.uint8)
    elif whole:
        x = x.astype(np.float32) / maximum
    return names, x


def _load(
    path: Path | NDArray[Any], sample_shape: Sequence[int], info: ModelInfo | None, invert: bool
) -> tuple[list[str], NDArray[Any]]:
    if isinstance(path, np.ndarray):
        x = _as_samples(_name(path), path, sample_shape, info)
        return [str(i) for i in range(len(x))], x
    if path.is_dir():
        images = sorted(file for file in path.iterdir() if file.suffix.lower() in IMAGE_SUFFIXES)
        if not images:
            raise InputError(f"{path} holds no {', '.join(IMAGE_SUFFIXES)} files; {EXPECTED}")
        x = np.stack([_image(file, sample_shape, info, invert) for file in images])
        return [file.name for file in images], x
    if not path.is_file():
        raise InputError(f"{path} does not exist; {EXPECTED}")
    if path.suffix.lower() in IMAGE_SUFFIXES:
        return [path.name], _image(path, sample_shape, info, invert)[None]
    if path.suffix.lower() in (".npy", ".npz"):
        x = _as_samples(str(path), _array(path), sample_shape, info)
        return [f"{path.name}[{i}]" for i in range(len(x))], x
    raise InputError(f"{path} has an unknown ending; {EXPECTED}")


def _name(path: Path | NDArray[Any]) -> str:
    return "the array" if isinstance(path, np.ndarray) else str(path)


def _array(path: Path) -> NDArray[Any]:
    arrays = read_arrays(path, EXPECTED)
    if "x" not in arrays and len(arrays) != 1:
        raise InputError(f"{path} must have an array x, got {', '.join(arrays) or 'none'}")
    return arrays["x"] if "x" in arrays else next(iter(arrays.values()))


def _as_samples(path: str, x: NDArray[Any], sample_shape: Sequence[int], info: ModelInfo | None) -> NDArray[Any]:
    """Bring (B, *) or one example (*) to (B, *sample_shape), through the shape of the data's examples, if known."""
    size = int(np.prod(sample_shape))
    shape = info.sample_shape if info is not None and np.prod(info.sample_shape) == size else sample_shape
    if not (np.issubdtype(x.dtype, np.integer) or np.issubdtype(x.dtype, np.floating)):
        raise InputError(f"{path} must hold numbers, got dtype {x.dtype}")
    if np.issubdtype(x.dtype, np.floating) and not np.isfinite(x).all():
        raise InputError(f"{path} holds {np.count_nonzero(~np.isfinite(x))} values that are not finite; remove them")
    if x.ndim and np.prod(x.shape[1:]) == size:
        return as_taken(as_taken(x, shape), sample_shape)
    if x.size == size:
        return as_taken(as_taken(x[None], shape), sample_shape)
    raise InputError(f"{path} must hold examples of {size} values (shape {tuple(sample_shape)}), got shape {x.shape}")


def _image(path: Path, sample_shape: Sequence[int], info: ModelInfo | None, invert: bool) -> NDArray[np.float32]:
    shape = tuple(info.sample_shape) if info is not None and info.sample_shape else tuple(sample_shape)
    if len(shape) == 3 and 1 in (shape[0], shape[2]):  # grey
        shape = shape[1:] if shape[0] == 1 else shape[:2]
    if len(shape) not in (2, 3) or (len(shape) == 3 and 3 not in (shape[0], shape[2])):
        raise InputError(f"{path} is an image, but the model takes examples of shape {shape}; give it an array")
    height, width = shape if len(shape) == 2 else shape[1:] if shape[0] == 3 else shape[:2]
    try:
        with Image.open(path) as file:
            rgba = file.convert("RGBA")
    except (UnidentifiedImageError, OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise InputError(f"{path} is no image that can be read ({str(error).splitlines()[0]})") from error
    paper = (255, 255, 255, 255) if invert else (0, 0, 0, 255)
    opaque = Image.alpha_composite(Image.new("RGBA", rgba.size, paper), rgba)
    grey = len(shape) == 2
    resized = opaque.convert("L" if grey else "RGB").resize((width, height), Image.Resampling.BOX)
    pixels = np.asarray(resized, dtype=np.float32) / np.float32(255)
    pixels = 1 - pixels if invert else pixels
    if not grey and shape[0] == 3:
        pixels = pixels.transpose(2, 0, 1)
    example: NDArray[np.float32] = as_taken(pixels[None], sample_shape)[0]
    return example
