from __future__ import annotations

import io
import struct
import subprocess
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from smx.errors import InputError
from smx.runtime.images import FORMATS, MAX_PIXELS, read_image


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(width: int, height: int, *chunks: bytes) -> bytes:
    """Return a PNG file of grey pixels that are all 0, but for the first row none of them in the file."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks) + chunk(b"IDAT", zlib.compress(bytes(width + 1)))


def test_no_program_is_started_for_postscript(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[object] = []
    monkeypatch.setattr(subprocess.Popen, "__init__", lambda self, *arguments, **options: started.append(arguments))
    path = tmp_path / "picture.png"
    path.write_text(
        "%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n0 0 8 8 rectfill\nshowpage\n%%EOF\n"
    )
    with Image.open(path) as image:
        assert image.format == "EPS"  # Pillow alone would take it, and run Ghostscript
    with pytest.raises(
        InputError, match=r"picture\.png is no image that can be read .*expected PNG, JPEG, WEBP, BMP, TIFF"
    ):
        read_image(path, 8, 8, colour=False)
    assert not started


@pytest.mark.parametrize("size", [(8193, 8192), (30_000, 30_000), (1, MAX_PIXELS + 1)])
def test_too_many_pixels_are_refused_before_they_are_decoded(size: tuple[int, int], tmp_path: Path) -> None:
    (tmp_path / "bomb.png").write_bytes(png(*size))
    with pytest.raises(InputError, match=r"bomb\.png is no image that can be read \(.*pixels.*\)") as caught:
        read_image(tmp_path / "bomb.png", 8, 8, colour=False)
    assert "truncated" not in str(caught.value)


def test_an_image_of_the_largest_size_is_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("smx.runtime.images.MAX_PIXELS", 12)
    Image.new("L", (4, 3), 255).save(tmp_path / "a.png")
    assert (read_image(tmp_path / "a.png", 3, 4, colour=False) == 1).all()


def test_text_that_unpacks_to_gigabytes_is_refused(tmp_path: Path) -> None:
    text = chunk(b"zTXt", b"key\0\0" + zlib.compress(bytes(2**26)))
    (tmp_path / "text.png").write_bytes(png(1, 1, text))
    with pytest.raises(InputError, match=r"text\.png is no image that can be read"):
        read_image(tmp_path / "text.png", 1, 1, colour=False)


@pytest.mark.parametrize("content", [b"", b"x", png(4, 3)[:-9], b"BM" + bytes(60), b"\xff\xd8\xff\xe0" + bytes(9)])
def test_damaged_files_are_one_line(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(content)
    for source in (tmp_path / "a.png", io.BytesIO(content)):
        with pytest.raises(InputError, match=r"^[^\n]* is no image that can be read[^\n]*$") as raised:
            read_image(source, 3, 4, colour=True)
        assert " at 0x" not in str(raised.value)


@pytest.mark.parametrize("format", ["PNG", "WEBP"])
def test_the_first_image_of_an_animation_is_read(format: str, tmp_path: Path) -> None:
    frames = [Image.new("RGB", (5, 4), (value, value, value)) for value in (255, 0, 128)]
    frames[0].save(tmp_path / "a.png", format, save_all=True, append_images=frames[1:], lossless=True)
    with Image.open(tmp_path / "a.png") as image:
        assert getattr(image, "n_frames") == 3  # noqa: B009
    assert (read_image(tmp_path / "a.png", 4, 5, colour=False) == 1).all()


def test_a_photograph_is_turned_as_its_camera_was(tmp_path: Path) -> None:
    pixels = np.zeros((2, 3), np.uint8)
    pixels[0, 0] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees, clockwise
    Image.fromarray(pixels).save(tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png", 3, 2, colour=False), np.rot90(pixels, -1) / 255)


@pytest.mark.parametrize(
    ("format", "mode"), [(format, mode) for format in FORMATS for mode in ("L", "RGB", "1")] + [("PNG", "P")]
)
def test_modes_and_formats(format: str, mode: str, tmp_path: Path) -> None:
    Image.new("RGB", (3, 2), (255, 255, 255)).convert(mode).save(tmp_path / "a.png", format)
    for colour, shape in ((True, (2, 3, 3)), (False, (2, 3))):
        x = read_image(tmp_path / "a.png", 2, 3, colour=colour)
        assert (x.shape, x.dtype.name) == (shape, "float32")
        np.testing.assert_allclose(x, 1, atol=0.01)


MODES = {
    "PNG": ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"),
    "JPEG": ("L", "RGB", "CMYK", "YCbCr"),
    "WEBP": ("RGB", "RGBA", "RGBX", "L", "P"),
    "TIFF": ("1", "L", "LA", "P", "PA", "RGB", "RGBX", "RGBA", "CMYK", "YCbCr", "I;16", "I;16B", "I"),
    "BMP": ("1", "L", "P", "RGB", "RGBA"),
}
"""Every mode that Pillow saves in a format, but for floating pixels and LAB."""


@pytest.mark.parametrize(("format", "mode"), [(format, mode) for format in FORMATS for mode in MODES[format]])
def test_every_mode_gives_the_picture_that_eight_bit_rgb_gives(format: str, mode: str, tmp_path: Path) -> None:
    ramp = np.linspace(0, 255, 48).round().astype(np.uint8)
    pixels = np.stack(
        [np.broadcast_to(ramp, (32, 48)), np.broadcast_to(ramp[:32, None], (32, 48)), 255 - ramp + 0 * ramp[:32, None]],
        2,
    )
    grey = mode in ("1", "L", "LA", "I;16", "I;16B", "I")
    rgb = Image.fromarray(np.repeat(pixels[..., :1], 3, 2) if grey else pixels)
    if mode.startswith("I"):
        top = 2**31 - 1 if (format, mode) == ("TIFF", "I") else 2**16 - 1
        values = np.asarray(rgb.convert("L")) / 255 * top
        picture = Image.fromarray(values.astype(np.int32)) if mode == "I" else sixteen(values, mode)
    else:
        picture = rgb.convert(mode)
    saved = rgb.convert("1").convert("RGB") if mode == "1" else rgb
    path, reference = tmp_path / "a.img", tmp_path / "b.png"
    picture.save(
        path, format, **({"lossless": True} if format == "WEBP" else {"quality": 100} if format == "JPEG" else {})
    )
    saved.save(reference, "PNG")
    for colour in (False, True):
        expected = read_image(reference, 16, 24, colour=colour)
        got = read_image(path, 16, 24, colour=colour)
        np.testing.assert_allclose(got, expected, atol=0.12 if mode in ("P", "PA") else 0.02)
    assert expected.max() - expected.min() > 0.8


def sixteen(values: NDArray[np.float64], mode: str) -> Image.Image:
    order = ">u2" if mode == "I;16B" else "<u2"
    data = values.round().astype(order)
    return Image.frombytes(mode, data.shape[::-1], data.tobytes())


def tiff(values: NDArray[Any], tags: dict[int, Any]) -> bytes:
    """Return a TIFF file of grey pixels, little-endian, with tags beside or instead of the usual ones."""
    own = {256: values.shape[1], 257: values.shape[0], 258: values.dtype.itemsize * 8, 259: 1, 262: 1, 273: 0, 277: 1}
    own |= {278: values.shape[0], 279: values.nbytes, **tags}
    head = 8 + 2 + 12 * len(own) + 4
    own[273] = head
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in sorted(own.items()))
    return (
        b"II*\0"
        + struct.pack("<IH", 8, len(own))
        + entries
        + bytes(4)
        + values.astype(values.dtype.newbyteorder("<")).tobytes()
    )


@pytest.mark.parametrize(
    ("dtype", "top", "tags"),
    [
        (np.int8, 2**7 - 1, {339: 2}),
        (np.uint16, 2**16 - 1, {}),
        (np.uint16, 2**16 - 1, {262: 0}),  # white is zero
        (np.int16, 2**15 - 1, {339: 2}),
        (np.uint32, 2**32 - 1, {}),
        (np.int32, 2**31 - 1, {339: 2}),
    ],
)
def test_grey_of_more_bits_is_scaled_by_its_range(dtype: Any, top: int, tags: dict[int, int], tmp_path: Path) -> None:
    shares = np.array([[0, 0.25, 0.5, 1]])
    (tmp_path / "a.tif").write_bytes(tiff((shares * top).round().astype(dtype), tags))
    expected = 1 - shares if tags.get(262) == 0 else shares
    np.testing.assert_allclose(read_image(tmp_path / "a.tif", 1, 4, colour=False), expected, atol=0.006)


def test_pixels_without_a_range_are_refused(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((2, 2), np.float32)).save(tmp_path / "a.tif")
    with pytest.raises(InputError, match="floating pixels have no range; save the image with whole numbers"):
        read_image(tmp_path / "a.tif", 2, 2, colour=False)
    Image.new("LAB", (2, 2)).save(tmp_path / "a.tif")
    with pytest.raises(InputError, match=r"a\.tif is no image that can be read"):
        read_image(tmp_path / "a.tif", 2, 2, colour=False)


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation(orientation: int, bits: int, tmp_path: Path) -> None:
    """The EXIF standard says which corner the first row and column are."""
    pixels = np.arange(6).reshape(2, 3) * 40
    turned = {
        1: pixels, 2: pixels[:, ::-1], 3: pixels[::-1, ::-1], 4: pixels[::-1], 5: pixels.T, 6: np.rot90(pixels, -1),
        7: pixels[::-1, ::-1].T, 8: np.rot90(pixels),
    }[orientation]  # fmt: skip
    exif = Image.Exif()
    exif[0x0112] = orientation
    values = pixels.astype(np.uint8) if bits == 8 else (pixels * 257).astype(np.uint16)
    Image.fromarray(values).save(tmp_path / "a.png", exif=exif)
    np.testing.assert_allclose(read_image(tmp_path / "a.png", *turned.shape, colour=False), turned / 255, atol=1e-6)


def test_cmyk(tmp_path: Path) -> None:
    Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(tmp_path / "a.jpg", quality=100)
    x = read_image(tmp_path / "a.jpg", 1, 1, colour=True)
    np.testing.assert_allclose(x[0, 0], [1, 0, 0], atol=0.03)


def test_ink_on_transparent_paper(tmp_path: Path) -> None:
    ink = np.zeros((2, 2, 4), np.uint8)
    ink[0, :, 3] = 255  # black on nothing, as drawing programs save it
    Image.fromarray(ink).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_image(tmp_path / "a.png", 2, 2, colour=False), [[0, 0], [0, 0]])
    np.testing.assert_array_equal(read_image(tmp_path / "a.png", 2, 2, colour=False, invert=True), [[1, 1], [0, 0]])


@pytest.mark.parametrize(("dtype", "step"), [(np.uint8, 1), (np.uint16, 257)])
def test_one_transparent_grey(dtype: Any, step: int, tmp_path: Path) -> None:
    grey = (np.array([[0, 100, 200, 255]]) * step).astype(dtype)
    Image.fromarray(grey).save(tmp_path / "a.png", transparency=255 * step)
    for invert, paper in ((False, 0.0), (True, 0.0)):
        read = read_image(tmp_path / "a.png", 1, 4, colour=False, invert=invert)
        shares = np.array([[0, 100, 200]]) / 255
        expected = np.append(1 - shares if invert else shares, [[paper]], 1)
        np.testing.assert_allclose(read, expected, atol=0.003)
