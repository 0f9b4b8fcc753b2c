from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from smx.errors import InputError
from smx.runtime import Session
from tests.conftest import smx


def test_run_takes_any_number_dtype_and_batch(exported: Path) -> None:
    session = Session(exported, threads=1)
    x = np.random.default_rng(0).random((7, 64))
    together = session.run(x)
    assert together.shape == (7, 10)
    assert together.dtype == np.float32
    np.testing.assert_allclose(np.concatenate([session.run(x[i : i + 1]) for i in range(7)]), together, atol=1e-5)
    assert session.bound(x.astype(np.float32))()[0].shape == (7, 10)  # type: ignore[index]


def test_wrong_inputs_say_what_was_expected(exported: Path) -> None:
    session = Session(exported)
    with pytest.raises(InputError, match=r"small\.onnx expects an input of shape \(batch, 64\), got \(2, 63\)"):
        session.run(np.zeros((2, 63)))
    with pytest.raises(InputError, match=r"got \(64,\)"):
        session.run(np.zeros(64))
    with pytest.raises(InputError, match="expects 1 inputs, got 2"):
        session.run(np.zeros((1, 64)), np.zeros((1, 64)))
    with pytest.raises(InputError, match="an input of numbers, got dtype <U1"):
        session.run(np.full((1, 64), "a"))


def test_a_model_of_one_batch_size_runs_on_any_number_of_raw_examples(run: Path, tmp_path: Path) -> None:
    result = smx("export", run / "model.pt", tmp_path / "m.onnx", "--normalize", "--batch", "4")
    assert result.returncode == 0, result.stderr
    session = Session(tmp_path / "m.onnx")
    assert (session.batch, session.takes_raw) == (4, True)
    x = np.random.default_rng(0).integers(0, 17, (9, 8, 8), np.uint8)
    together = session.run_many(x, 100)
    assert together.shape == (9, 10)
    np.testing.assert_array_equal(together[4:8], session.run(x[4:8]))
    with pytest.raises(InputError, match=r"expects whole numbers \(uint8\), got dtype float32"):
        session.run(np.zeros((4, 8, 8), np.float32))


def test_the_provider_is_the_one_that_was_asked_for(exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        with pytest.raises(InputError, match=r"the provider 'cuda' is not in this ONNX Runtime; available: .*cpu"):
            Session(exported, "cuda")
    with pytest.raises(InputError, match="unknown provider 'gpu'; known are cpu, cuda, tensorrt"):
        Session(exported, "gpu")
    # A provider that is built in but does not start falls back in silence; that is an error here.
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    with (
        pytest.warns(UserWarning, match="Specified provider"),
        pytest.raises(InputError, match=r"cuda could not be started .* fell back to CPU"),
    ):
        Session(exported, "cuda")


def test_files_that_are_no_model(tmp_path: Path, exported: Path) -> None:
    with pytest.raises(InputError, match=r"none\.onnx does not exist; expected an ONNX model"):
        Session(tmp_path / "none.onnx")
    with pytest.raises(InputError, match="is a folder"):
        Session(tmp_path)
    for content in (b"", b"hello", exported.read_bytes()[:5000]):
        (tmp_path / "bad.onnx").write_bytes(content)
        with pytest.raises(InputError, match=r"bad\.onnx is no model that ONNX Runtime can load: [^\n]+$"):
            Session(tmp_path / "bad.onnx")
    with pytest.raises(InputError, match="threads must be at least 1, got 0"):
        Session(exported, threads=0)
