from __future__ import annotations

import contextlib
import hashlib
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from smx import data
from smx.arrays import as_taken, image_shape
from smx.data.torchvision_sets import import_datasets
from smx.errors import InputError, SmxError
from smx.training.examples import load_examples


def write_npz(path: Path, **arrays: Any) -> Path:
    np.savez(path, **arrays)
    return path


def user_arrays(examples: int = 60) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    random = np.random.default_rng(0)
    return random.integers(0, 256, (examples, 4, 3), dtype=np.uint8), np.arange(examples) % 3


def test_digits_are_split_stratified() -> None:
    digits = data.load("digits")
    assert [len(part) for part in (digits.train, digits.validation, digits.test)] == [1293, 144, 360]
    for part in (digits.train, digits.validation, digits.test):
        shares = np.bincount(part.y, minlength=10) / len(part)
        np.testing.assert_allclose(shares, 0.1, atol=0.012)
        assert part.x.dtype == np.uint8
        assert (part.x.min(), part.x.max()) == (0, 16)
    rows = np.concatenate([part.x for part in (digits.train, digits.validation, digits.test)])
    assert len(np.unique(rows, axis=0)) == 1797  # every image is in one part only
    assert digits.sample_shape == (8, 8)
    assert digits.fingerprint() == data.load("digits").fingerprint()


@pytest.mark.parametrize("labels", [(0, 1, 2), (1, 2, 3), (0, 5, 7), (-1, 0, 1), (1001, 2002, 3003)])
def test_labels_with_gaps_are_the_names_of_the_classes(labels: tuple[int, ...], tmp_path: Path) -> None:
    x, y = user_arrays()
    own = data.load(str(write_npz(tmp_path / "own.npz", x=x, y=np.array(labels, np.int16)[y])))
    assert own.class_names == tuple(map(str, labels))
    same = data.load(str(write_npz(tmp_path / "same.npz", x=x, y=y)))
    for part in ("train", "validation", "test"):
        np.testing.assert_array_equal(getattr(own, part).y, getattr(same, part).y)
    assert own.fingerprint() == same.fingerprint()


def test_mnist_is_split_as_in_the_paper(mnist_dir: Path) -> None:
    mnist = data.load("mnist", mnist_dir)
    assert [len(part) for part in (mnist.train, mnist.validation, mnist.test)] == [54_000, 6_000, 10_000]
    assert mnist.sample_shape == (28, 28)
    assert mnist.class_names == tuple("0123456789")
    assert np.bincount(mnist.test.y)[:3].tolist() == [980, 1135, 1032]


def test_a_users_file(tmp_path: Path) -> None:
    x, y = user_arrays()
    own = data.load(str(write_npz(tmp_path / "own.npz", x=x, y=y, names=["a", "b", "c"])))
    assert own.class_names == ("a", "b", "c")
    assert own.sample_shape == (4, 3)
    assert own.maximum == 255
    assert own.train.x.dtype == np.uint8
    assert len(own.train) + len(own.validation) + len(own.test) == 60
    wide = data.load(str(write_npz(tmp_path / "wide.npz", x=x.astype(np.int64) * 4, y=y)))
    assert wide.maximum == int(x.max()) * 4
    taken = data.load(str(write_npz(tmp_path / "float.npz", x=x * 0.5, y=y)))
    assert (taken.maximum, taken.train.x.max() > 100) == (1.0, True)
    assert taken.train.x.dtype == np.float32


@pytest.mark.parametrize("dtype", [np.int8, np.int16, np.int32, np.int64])
def test_the_lowest_number_of_a_type_has_its_magnitude(dtype: type[np.signedinteger[Any]], tmp_path: Path) -> None:
    x, y = user_arrays()
    x = np.where(x > 100, np.iinfo(dtype).min, 3).astype(dtype)
    own = data.load(str(write_npz(tmp_path / "own.npz", x=x, y=y)))
    assert own.maximum == -float(np.iinfo(dtype).min)
    assert own.signed


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"y": np.zeros(5, np.int64)}, r"y must have one label for each of the 60 examples of x, got shape \(5,\)"),
        (
            {"y": np.full(60, 3), "names": ["a", "b"]},
            "names has 2 entries, so y must lie between 0 and 1, got 3 to 3; give names an entry for each class",
        ),
        ({"y": np.arange(60) % 3 + 1, "names": ["a", "b", "c"]}, "y must lie between 0 and 2, got 1 to 3"),
        (
            {"y": np.arange(60) % 3, "names": list("abcd")},
            "no example of y has the label 3, whose entry in names is 'd'",
        ),
        ({"y": np.full(60, 3)}, "all examples of y have the label 3; a classifier needs two or more classes"),
        ({"y": np.arange(60) * 10**9}, "examples are too few to keep 20% of every class apart"),
        ({"y": np.zeros(60)}, "y must hold class indices of an integer dtype, got float64"),
        ({"x": np.full((60, 2), np.nan)}, "x holds 120 values that are not finite in float32"),
        ({"x": np.zeros(60)}, r"x must have the shape \(examples, values, ...\)"),
        ({"x": np.full((60, 2), "a")}, "x must hold numbers, got dtype <U1"),
        ({"x": np.zeros((60, 2), "m8[s]")}, r"x must hold numbers, got dtype timedelta64\[s\]"),
        ({"y": np.zeros(60, "m8[s]")}, r"y must hold class indices of an integer dtype, got timedelta64\[s\]"),
        ({"y": np.arange(60) % 2, "names": ["a", "\ud800"]}, r"the entry '\\ud800' of names is no text in UTF-8"),
        ({"y": np.arange(60)}, "60 examples are too few"),
    ],
)
def test_unusable_content_is_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    x, y = user_arrays()
    with pytest.raises(InputError, match=message):
        data.load(str(write_npz(tmp_path / "bad.npz", **{"x": x, "y": y, **change})))


def test_a_small_file_takes_little_memory(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "bomb.npz", x=np.zeros((2**18, 1024), np.uint8))
    with pytest.raises(InputError, match="bytes would unfold to 26843"):
        data.load(str(tmp_path / "bomb.npz"))
    np.savez_compressed(tmp_path / "small.npz", x=np.zeros((60, 1024), np.uint8), y=np.arange(60) % 2)
    assert data.load(str(tmp_path / "small.npz")).sample_shape == (1024,)


def test_unreadable_files_are_refused(tmp_path: Path) -> None:
    x, y = user_arrays()
    with pytest.raises(InputError, match=r"none\.npz does not exist; expected an \.npz file with x"):
        data.load(str(tmp_path / "none.npz"))
    with pytest.raises(InputError, match="has no array y, only x"):
        data.load(str(write_npz(tmp_path / "x.npz", x=x)))
    damaged = bytearray(write_npz(tmp_path / "z.npz", x=x, y=y).read_bytes())
    for position in range(40, len(damaged), 7):
        flipped = damaged.copy()
        flipped[position] ^= 0xFF
        (tmp_path / "z.npz").write_bytes(flipped)
        with contextlib.suppress(InputError):  # no other error comes out
            data.load(str(tmp_path / "z.npz"))
        (tmp_path / "z.npz").write_bytes(damaged[:position])
        with pytest.raises(InputError, match=r"z\.npz can't be read"):
            data.load(str(tmp_path / "z.npz"))
    with pytest.raises(InputError, match="can't be read"):  # objects could run code
        data.load(str(write_npz(tmp_path / "code.npz", x=np.array([print], object), y=y)))
    with pytest.raises(InputError, match=r"unknown data set 'cifar'; give digits, mnist, .*, cifar10 or the path"):
        data.load("cifar")


CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


@pytest.fixture
def cifar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, NDArray[np.uint8]]:
    """A small set in CIFAR-10's format, with torchvision's sums replaced by its own; and the images of the test set."""
    kind = import_datasets().CIFAR10
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    random = np.random.default_rng(0)
    rows = {}

    def write(name: str, content: dict[str, Any]) -> str:
        (folder / name).write_bytes(pickle.dumps(content))
        return hashlib.md5((folder / name).read_bytes()).hexdigest()

    for files in ("train_list", "test_list"):
        sums = []
        for name, _ in getattr(kind, files):
            rows[name] = random.integers(0, 256, (40, 3072), np.uint8)
            sums.append([name, write(name, {"data": rows[name], "labels": [i % 10 for i in range(40)]})])
        monkeypatch.setattr(kind, files, sums)
    meta = {**kind.meta, "md5": write("batches.meta", {"label_names": CLASSES})}
    monkeypatch.setattr(kind, "meta", meta)
    monkeypatch.setattr(kind, "url", "http://127.0.0.1:9/none.tar.gz")
    return tmp_path, rows["test_batch"]


def test_cifar10(cifar: tuple[Path, NDArray[np.uint8]]) -> None:
    folder, tested = cifar
    images = data.load("cifar10", folder)
    assert [len(part) for part in (images.train, images.validation, images.test)] == [180, 20, 40]
    assert (images.sample_shape, images.maximum, list(images.class_names)) == ((3, 32, 32), 255, CLASSES)
    # The file has the 1024 red values of an image first, row by row.
    np.testing.assert_array_equal(images.test.x.reshape(40, -1), tested)
    assert images.test.y.tolist() == [i % 10 for i in range(40)]


def test_python_looks_where_the_commands_look(
    cifar: tuple[Path, NDArray[np.uint8]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SMX_DATA_DIR", str(cifar[0]))
    assert data.is_here("cifar10")
    assert len(data.load("cifar10").test) == 40
    assert not data.is_here("cifar10", tmp_path / "elsewhere")
    monkeypatch.setenv("SMX_DATA_DIR", "")
    monkeypatch.setattr(Path, "home", lambda: tmp_path / "nobody")
    assert not data.is_here("cifar10")


def test_a_cifar10_that_is_damaged_or_absent(cifar: tuple[Path, NDArray[np.uint8]], tmp_path: Path) -> None:
    folder, _ = cifar
    batch = folder / "cifar-10-batches-py" / "data_batch_3"
    batch.write_bytes(pickle.dumps({"data": Evil(), "labels": []}))  # torchvision would unpickle it, but for its sum
    with pytest.raises(InputError, match=r"cifar10 in .*cifar-10-batches-py is damaged .*; remove the folder"):
        data.load("cifar10", folder)
    batch.unlink()
    with pytest.raises(
        SmxError, match=r"cifar10 is not in .* could not be downloaded .* put data_batch_1, .*batches.meta"
    ):
        data.load("cifar10", folder)


class Evil:
    def __reduce__(self) -> Any:
        return (pytest.fail, ("it was unpickled",))


@settings(max_examples=50, deadline=None)
@given(st.tuples(*[st.integers(1, 7)] * 3), st.integers(1, 4))
def test_images_are_brought_to_the_shape_that_a_network_takes(shape: tuple[int, int, int], examples: int) -> None:
    """Against plain indexing; channels stand where a length of 1 or 3 says, and first if both ends have one."""
    x = np.random.default_rng(0).random((examples, *shape))
    first = shape[0] in (1, 3) or shape[2] not in (1, 3)
    channels, height, width = shape if first else (shape[2], *shape[:2])
    assert image_shape(shape) == (channels, height, width)
    taken = as_taken(x, image_shape(shape))
    np.testing.assert_array_equal(as_taken(torch.from_numpy(x), image_shape(shape)), taken)
    for c in range(channels):
        np.testing.assert_array_equal(taken[:, c], x[:, c] if first else x[..., c])
    np.testing.assert_array_equal(as_taken(taken, shape), x)  # and back
    np.testing.assert_array_equal(as_taken(x, (x[0].size,)), x.reshape(examples, -1))


@pytest.mark.parametrize("dtype", ["uint8", "int64", ">f4", "float16"])
def test_examples_are_normalised_once_where_a_network_takes_them(dtype: str, tmp_path: Path) -> None:
    """Against NumPy, bit for bit; and the fingerprint is that of the normalised values, as in release 0.1."""
    x = np.random.default_rng(0).integers(0, 200, (60, 4, 5, 3)).astype(dtype)
    own = data.load(str(write_npz(tmp_path / "own.npz", x=x, y=np.arange(60) % 3)))
    assert own.sample_shape == (4, 5, 3)
    splits = (own.train, own.validation, own.test)
    examples = load_examples(own, (3, 4, 5), "cpu")
    digest = hashlib.sha256()
    for split, images in zip(splits, examples, strict=True):
        expected = split.x.astype(np.float32) / np.float32(own.maximum)
        np.testing.assert_array_equal(images.x.numpy(), expected.transpose(0, 3, 1, 2))
        assert images.x.is_contiguous()
        np.testing.assert_array_equal(images.y, split.y)
        digest.update(expected.tobytes() + split.y.tobytes())
    assert own.fingerprint() == digest.hexdigest()
    flat = load_examples(own, (60,), "cpu")[2]
    np.testing.assert_array_equal(flat.x, own.test.x.reshape(-1, 60).astype(np.float32) / np.float32(own.maximum))
    with pytest.raises(InputError, match=r"own\.npz: expected examples of shape \(1, 8, 8\), got \(4, 5, 3\)"):
        load_examples(own, (1, 8, 8), "cpu")


def test_a_user_without_a_home(monkeypatch: pytest.MonkeyPatch) -> None:
    def nowhere() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", nowhere)
    monkeypatch.delenv("SMX_DATA_DIR", raising=False)
    with pytest.raises(InputError, match="no home folder to keep data in; set HOME, or give a folder by --data-dir"):
        data.load("mnist")


def test_names_of_classes_may_be_bytes(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", x=np.random.rand(200, 4), y=np.arange(200) % 2, names=np.array([b"cat", b"dog"]))
    assert data.load(str(tmp_path / "d.npz")).class_names == ("cat", "dog")
