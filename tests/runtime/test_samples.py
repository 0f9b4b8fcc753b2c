from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from smx.errors import InputError
from smx.runtime.metadata import ModelInfo
from smx.runtime.samples import load_samples


def info(sample_shape: tuple[int, ...], maximum: float) -> ModelInfo:
    return ModelInfo(
        smx_version="0", architecture="", layout="scatter", pool=(), layers=(), tolerance={},
        sample_shape=sample_shape, maximum=maximum,
    )  # fmt: skip


DIGITS = info((4, 3), 16.0)


def load(path: Path, shape: tuple[int, ...] = (12,), about: ModelInfo | None = DIGITS, **options: Any) -> NDArray[Any]:
    return load_samples(path, shape, about, **options)[1]


def test_whole_numbers_are_raw_and_floats_are_taken_as_they_are(tmp_path: Path) -> None:
    raw = np.arange(24, dtype=np.uint8).reshape(2, 4, 3) % 17
    np.save(tmp_path / "raw.npy", raw)
    np.testing.assert_array_equal(load(tmp_path / "raw.npy"), raw.reshape(2, 12).astype(np.float32) / np.float32(16))
    np.save(tmp_path / "float.npy", raw / 16)
    np.testing.assert_array_equal(load(tmp_path / "float.npy"), raw.reshape(2, 12) / 16)
    np.save(tmp_path / "one.npy", raw[0])
    assert load(tmp_path / "one.npy").shape == (1, 12)
    np.savez(tmp_path / "many.npz", y=np.zeros(2), x=raw)
    assert load_samples(tmp_path / "many.npz", (12,), DIGITS)[0] == ["many.npz[0]", "many.npz[1]"]
    names, x = load_samples(raw, (12,), DIGITS)
    assert names == ["0", "1"]
    np.testing.assert_array_equal(x, load(tmp_path / "raw.npy"))
    with pytest.raises(InputError, match="the array must hold numbers, got dtype <U1"):
        load_samples(np.full((2, 12), "a"), (12,), DIGITS)


def test_images_get_the_datas_size_and_range(tmp_path: Path) -> None:
    pixels = np.zeros((8, 6), np.uint8)
    pixels[:2] = 255
    Image.fromarray(pixels).save(tmp_path / "b.png")
    Image.fromarray(pixels).convert("RGB").save(tmp_path / "a.jpg", quality=100)
    expected = np.repeat([1.0, 0, 0, 0], 3)
    np.testing.assert_allclose(load(tmp_path / "b.png")[0], expected)
    np.testing.assert_allclose(load(tmp_path / "b.png", invert=True)[0], 1 - expected)
    for name in ("notes.txt", "._a.png"):
        (tmp_path / name).write_text("no picture")
    (tmp_path / "folder").mkdir()
    left: dict[str, str] = {}
    names, x = load_samples(tmp_path, (12,), DIGITS, left=left)
    assert list(left) == ["._a.png", "notes.txt"]
    assert "is no image that can be read" in left["._a.png"]
    with pytest.raises(InputError, match=r"\._a\.png is no image that can be read"):
        load_samples(tmp_path, (12,), DIGITS)
    assert names == ["a.jpg", "b.png"]
    np.testing.assert_allclose(x, [expected, expected], atol=0.02)


def test_colour_images_have_their_channels_where_the_model_wants_them(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 4, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "c.png")
    expected = pixels.astype(np.float32) / 255
    np.testing.assert_allclose(load(tmp_path / "c.png", (3, 5, 4), None)[0], expected.transpose(2, 0, 1))
    Image.fromarray(pixels[..., 0]).save(tmp_path / "g.png")
    np.testing.assert_allclose(load(tmp_path / "g.png", (1, 5, 4), None)[0, 0], expected[..., 0])
    np.testing.assert_allclose(load(tmp_path / "c.png", (60,), info((5, 4, 3), 255))[0], expected.reshape(-1))


@pytest.mark.parametrize("raw", [False, True])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_no_examples(dtype: type, raw: bool, tmp_path: Path) -> None:
    np.save(tmp_path / "none.npy", np.zeros((0, 4, 3), dtype))
    names, x = load_samples(tmp_path / "none.npy", (12,), DIGITS, raw=raw)
    assert (len(names), x.shape, x.dtype.name) == (0, (0, 12), "uint8" if raw else "float32")


def test_what_can_not_be_read(tmp_path: Path) -> None:
    def refuse(name: str, message: str, about: ModelInfo | None = DIGITS, content: bytes | None = None) -> None:
        if content is not None:
            (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match=message):
            load(tmp_path / name, about=about)

    refuse("absent.npy", "does not exist; expected a .npy or .npz file")
    refuse(".", r"holds no images that can be read \(it has none\)")
    refuse("a.txt", "has an unknown ending", content=b"x")
    refuse("a.png", "is no image that can be read", content=b"x")
    np.save(tmp_path / "none.npy", np.zeros(0))
    refuse("none.npy", r"examples of 12 values \(shape \(12,\)\), got shape \(0,\)")
    refuse("a.npy", "can't be read", content=b"x")
    np.save(tmp_path / "wide.npy", np.zeros((2, 13)))
    refuse("wide.npy", r"examples of 12 values \(shape \(12,\)\), got shape \(2, 13\)")
    np.save(tmp_path / "nan.npy", np.full((2, 12), np.nan))
    refuse("nan.npy", "holds 24 values that are not finite")
    np.save(tmp_path / "text.npy", np.full((2, 12), "a"))
    refuse("text.npy", "must hold numbers, got dtype <U1")
    np.save(tmp_path / "complex.npy", np.zeros((2, 12), complex))
    refuse("complex.npy", "must hold numbers, got dtype complex128")
    np.savez(tmp_path / "two.npz", a=np.zeros(12), b=np.zeros(12))
    refuse("two.npz", "must have an array x, got a, b")
    Image.new("L", (3, 4)).save(tmp_path / "ok.png")
    bomb = info((30_000, 30_000), 1.0)
    refuse("ok.png", r"the model takes examples of shape \(30000, 30000\); give it an array", bomb)
    refuse("ok.png", r"the model takes examples of shape \(12,\); give it an array", info((12,), 1.0))


def test_channels_go_where_the_model_wants_them(tmp_path: Path) -> None:
    """The data had (H, W, C); its networks take (C, H, W), or all values in the data's order."""
    data = info((4, 5, 3), 255.0)
    images = np.random.default_rng(0).integers(0, 256, (2, 4, 5, 3), dtype=np.uint8)
    first = images.transpose(0, 3, 1, 2)
    for i, image in enumerate(images):
        Image.fromarray(image).save(tmp_path / f"{i}.png")
    np.save(tmp_path / "last.npy", images)
    np.save(tmp_path / "first.npy", first)
    np.save(tmp_path / "flat.npy", images.reshape(2, 60))
    np.save(tmp_path / "one.npy", images[0])
    for name in (".", "last.npy", "first.npy", "flat.npy", "one.npy", "0.png"):
        count = 1 if name in ("one.npy", "0.png") else 2
        x = load(tmp_path / name, (3, 4, 5), data)
        np.testing.assert_array_equal(x, first[:count].astype(np.float32) / np.float32(255), err_msg=name)
        raw = load(tmp_path / name, (4, 5, 3), data, raw=True)
        np.testing.assert_array_equal(raw, images[:count], err_msg=name)
        flat = load(tmp_path / name, (60,), data, raw=True)
        np.testing.assert_array_equal(flat, images[:count].reshape(count, 60), err_msg=name)


def test_grey_images_may_have_an_axis_for_their_channel(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (4, 5), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "g.png")
    for shape in ((4, 5), (4, 5, 1), (1, 4, 5)):
        x = load(tmp_path / "g.png", (1, 4, 5), info(shape, 255.0), raw=True)
        np.testing.assert_array_equal(x, pixels[None, None])


def test_what_is_no_file_is_not_called_absent(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.npy")
    with pytest.raises(InputError, match=r"pipe\.npy is no file; expected"):
        load_samples(tmp_path / "pipe.npy", (4,), None)
    with pytest.raises(InputError, match=r"none\.npy does not exist; expected"):
        load_samples(tmp_path / "none.npy", (4,), None)
