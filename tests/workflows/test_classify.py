from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import smx
from smx.errors import InputError
from smx.runtime.classes import probabilities
from tests.conftest import refused
from tests.conftest import smx as command
from tests.runtime.serving.models import make

X = np.array([[2.0, 0.5, -1.0, 0.0], [0.1, 0.2, 0.3, 0.5]], np.float32)
ODDS = np.exp(X.astype(np.float64))
SOFTMAX = ODDS / ODDS.sum(1, keepdims=True)


def model(folder: Path, operators: str) -> Path:
    return make(folder / "m.onnx", f"(float[b,4] x) => (float[b,4] y) {{ {operators} }}", {})


def test_probabilities_are_not_put_through_softmax_again(tmp_path: Path) -> None:
    for operators in ("y = Identity(x)", "y = Softmax(x)"):
        found = smx.classify(model(tmp_path, operators), X).probabilities
        np.testing.assert_allclose(found, SOFTMAX, rtol=1e-5)
    half = "h = Cast<to = 10>(x)  p = Softmax(h)  y = Cast<to = 1>(p)"
    np.testing.assert_allclose(smx.classify(model(tmp_path, half), X).probabilities, SOFTMAX, atol=1e-3)
    assert smx.classify(model(tmp_path, "y = Softmax(x)"), X[:0]).probabilities.shape == (0, 4)


@pytest.mark.parametrize("classes", [3, 4, 10, 100])
def test_probabilities_of_a_quantized_model_stay(classes: int) -> None:
    true = np.random.default_rng(classes).dirichlet(np.ones(classes), 500)
    coarse = np.round(true * 256) / 256
    assert np.abs(coarse.sum(1) - 1).max() > 1e-3
    np.testing.assert_allclose(probabilities(coarse), true, atol=0.01 + classes / 512)
    for row in coarse:  # whatever stands beside it
        np.testing.assert_allclose(probabilities(row[None])[0], row / row.sum(), rtol=1e-12)


@pytest.mark.parametrize("scores", [[np.nan, 1.0, 2.0], [np.inf, 1.0, 2.0], [-np.inf, -np.inf, -np.inf]])
def test_scores_that_name_no_class(scores: list[float]) -> None:
    with pytest.raises(InputError, match=r"its scores of example 1 are .*, which name no class"):
        probabilities(np.array([[0.0, 1.0, 2.0], scores], np.float32))
    np.testing.assert_allclose(probabilities(np.array([[-np.inf, 0.0, 0.0]])), [[0, 0.5, 0.5]])


def test_one_column_is_no_class(tmp_path: Path) -> None:
    for operators in ("y = ReduceSum<keepdims = 1>(x, axes)", "s = ReduceSum<keepdims = 1>(x, axes)  y = Sigmoid(s)"):
        signature = "(float[b,4] x) => (float[b,1] y) <int64[1] axes = {1}>"
        path = make(tmp_path / "m.onnx", f"{signature} {{ {operators} }}", {})
        with pytest.raises(InputError, match=r"m\.onnx can't be used to classify: it has one output column"):
            smx.classify(path, X)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Return a folder with two pictures and what is none; the second and third value of the model are the brightest."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name, pixels in (("a.png", [[0, 255], [0, 0]]), ("b.png", [[0, 0], [255, 0]])):
        Image.fromarray(np.array(pixels, np.uint8)).save(folder / name)
    (folder / "._a.png").write_bytes(b"\0\5\26\7")
    (folder / "notes.txt").write_text("text")
    return folder


@pytest.fixture
def images(tmp_path: Path) -> Path:
    text = "(float[b,1,2,2] x) => (float[b,4] y) { y = Flatten<axis = 1>(x) }"
    return make(tmp_path / "images.onnx", text, {})


def test_a_folder_gives_what_can_be_read_and_names_the_rest(images: Path, pictures: Path, tmp_path: Path) -> None:
    result = command("predict", images, pictures, "--json", tmp_path / "out.json")
    refused(result, 1, "2 could not be read and were left out: ._a.png, notes.txt (", "is no image that can be read")
    report = json.loads((tmp_path / "out.json").read_text())
    assert [(row["example"], row["index"]) for row in report["predictions"]] == [("a.png", 1), ("b.png", 2)]
    assert [row["file"] for row in report["left"]] == ["._a.png", "notes.txt"]
    assert "a.png" in result.stdout
    for name in ("._a.png", "notes.txt"):
        (pictures / name).unlink()
    assert command("predict", images, pictures).returncode == 0


def test_links_that_lead_nowhere_and_pipes_are_named(images: Path, pictures: Path) -> None:
    (pictures / "link.png").symlink_to("nowhere.png")
    os.mkfifo(pictures / "pipe.png")
    left = smx.classify(images, pictures).left
    assert left["link.png"] == f"{pictures / 'link.png'} does not exist"
    assert left["pipe.png"] == f"{pictures / 'pipe.png'} is no file"


def test_several_inputs(images: Path, pictures: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.eye(4, dtype=np.float32)[3:].reshape(1, 1, 2, 2))
    given = [pictures / "b.png", tmp_path / "x.npy", pictures / "a.png"]
    found = smx.classify(images, given)
    assert found.examples == (str(given[0]), f"{given[1]}[0]", str(given[2]))
    assert (found.indices.tolist(), found.left) == ([2, 3, 1], {})
    found = smx.classify(images, [pictures, tmp_path / "absent.png"])
    assert found.examples == (str(pictures / "a.png"), str(pictures / "b.png"))
    assert list(found.left) == [str(pictures / "._a.png"), str(pictures / "notes.txt"), str(tmp_path / "absent.png")]
    with pytest.raises(InputError, match=r"none of .*absent\.png, .*notes\.txt can be read: .* does not exist"):
        smx.classify(images, [tmp_path / "absent.png", pictures / "notes.txt"])
    with pytest.raises(InputError, match=r"absent\.png does not exist"):
        smx.classify(images, [tmp_path / "absent.png"])
