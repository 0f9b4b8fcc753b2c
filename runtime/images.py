"""Images from files, as arrays of the size that a network takes."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from smx.errors import InputError, one_line

logging.getLogger("PIL").addHandler(logging.NullHandler())  # what is wrong with an image is said in our errors

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF")
"""The formats that are read, whatever the name of a file ends in. Pillow runs other programs for some further ones."""

PHOTOMETRIC, WHITE_IS_ZERO = 262, 0
BITS, KIND, SIGNED = 258, 339, 2
"""Tags of TIFF: what the value 0 is, the bits of a value, and whether it has a sign."""

MAX_PIXELS = 2**26
"""A small file can hold an image that fills the memory."""


def read_image(
    source: Path | BinaryIO,
    height: int,
    width: int,
    *,
    colour: bool,
    invert: bool = False,
    name: str = "",
    max_pixels: int = MAX_PIXELS,
) -> NDArray[np.float32]:
    """Read an image, turned as its EXIF data say, and stretch it to a size.

    Args:
        source: the file, by its path or open. Of an animation, the first image is read.
        height, width: of the result, in pixels.
        colour: keep red, green and blue; otherwise the image becomes grey.
        invert: exchange black and white, for dark ink on light paper. Transparent pixels are paper: white with
            `invert`, black without.
        name: of the file in messages; else its path.
        max_pixels: larger images are refused before they are decoded.

    Returns:
        Values from 0 to 1, (height, width) or (height, width, 3).

    Raises:
        InputError: the file is damaged, of another format, or has too many pixels.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of many pixels, for which Pillow has a limit of its own, and of odd tags
            with Image.open(source, formats=FORMATS) as image:
                if image.width * image.height > max_pixels:
                    raise Image.DecompressionBombError(f"{image.width} x {image.height} pixels, at most {max_pixels}")
                rgba = _eight_bit(ImageOps.exif_transpose(image), getattr(image, "tag_v2", {})).convert("RGBA")
    except Exception as error:  # whatever a damaged file makes Pillow's decoders run into
        reason = "Pillow knows no such format" if isinstance(error, UnidentifiedImageError) else one_line(error)
        what = name or (source if isinstance(source, Path) else "the image")
        raise InputError(f"{what} is no image that can be read ({reason}); expected {', '.join(FORMATS)}") from error
    paper = (255, 255, 255, 255) if invert else (0, 0, 0, 255)
    opaque = Image.alpha_composite(Image.new("RGBA", rgba.size, paper), rgba).convert("RGB" if colour else "L")
    pixels = np.asarray(opaque.resize((width, height), Image.Resampling.BOX), np.float32) / np.float32(255)
    return 1 - pixels if invert else pixels


def _eight_bit(image: Image.Image, tags: Mapping[int, Any]) -> Image.Image:
    """Bring grey values of more bits to 8 by their range; Pillow would clip them. It converts such colours itself.

    Only TIFF has tags, which say more of the values; in all other formats they have 16 bits.

    Raises:
        ValueError: the values have no range, as floating ones.
    """
    if image.mode == "F":
        raise ValueError("floating pixels have no range; save the image with whole numbers, or give an array")
    if image.mode == "LAB":
        raise ValueError("its colours are LAB; save the image as RGB")
    signed = tags.get(KIND, (1,))[0] == SIGNED
    if not image.mode.startswith("I") and not (image.mode == "L" and signed):
        return image
    bits = tags.get(BITS, (16,))[0]
    values = np.asarray(image).astype(np.int64)
    if bits == 32 and not signed:
        values %= 2**32  # Pillow reads them with a sign
    if bits == 8:
        values -= 256 * (values > 127)  # and these without one
    grey = np.rint(values * (255 / (2 ** (bits - signed) - 1))).clip(0, 255).astype(np.uint8)
    scaled = Image.fromarray(255 - grey if tags.get(PHOTOMETRIC) == WHITE_IS_ZERO else grey)
    transparent = image.info.get("transparency")  # one grey value, in PNG
    if isinstance(transparent, int):
        scaled.putalpha(Image.fromarray(np.where(values == transparent, 0, 255).astype(np.uint8)))
    return scaled
