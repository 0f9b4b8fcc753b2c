from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from smx.errors import InputError
from smx.runtime.parity import isolated
from smx.runtime.parity.isolated import Sample, check_isolated
from tests.runtime.fakes import HEAD, save
from tests.timing.fakes import die

TWO = HEAD + "(float[N,3] x) => (float[N,3] twice, float[N,3] same) { twice = Add(x, x)  same = Identity(x) }"


def sample(examples: int, error: float = 0.0, name: str = "random") -> Sample:
    x = np.random.default_rng(0).random((examples, 3), np.float32) + 4
    return Sample(name=name, inputs=(x,), expected=(2 * x, x + np.float32(error)))


def check(path: Path, *samples: Sample, evaluation: Any = None) -> Any:
    how: dict[str, Any] = {"name": "mine", "otherwise": "do this", "atol": 1e-3, "rtol": 1e-4}
    return check_isolated(path, samples, **how, evaluation=evaluation)


def here(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call in this process."""
    return function(*arguments)


@pytest.mark.parametrize("elsewhere", [True, False])
def test_what_a_file_gives_is_compared_with_what_is_expected(
    elsewhere: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed: list[tuple[int, int]] = []
    if not elsewhere:
        monkeypatch.setattr(isolated, "in_subprocess", here)
        monkeypatch.setattr(os, "dup2", lambda *descriptors: closed.append(descriptors))
    path, x = save(tmp_path / "m.onnx", TWO), np.random.default_rng(1).random((2001, 3), np.float32)
    (tmp_path / "m.onnx.tune.json").write_text("damaged")  # what smx tune wrote is not used
    parity, predicted = check(path, sample(1200, name="many"), sample(2, 0.5), evaluation=x)
    np.testing.assert_array_equal(predicted, 2 * x)
    null = os.stat(os.devnull)  # noqa: PTH116
    assert [(to, os.path.samestat(os.fstat(fd), null)) for fd, to in closed] == [(2, True)] * (not elsewhere)
    assert (parity.atol, parity.rtol, parity.passed, parity.max_abs) == (1e-3, 1e-4, False, 0.5)
    assert parity.scale > 9
    assert [(row.inputs, row.output, row.batch_size, row.examples, row.passed) for row in parity.comparisons] == [
        ("many", "twice", 1200, 1200, True), ("many", "same", 1200, 1200, True),
        ("random", "twice", 2, 2, True), ("random", "same", 2, 2, False),
    ]  # fmt: skip
    parity, predicted = check(path, sample(2, 0.9e-3 * 5))  # within atol times the scale
    assert (parity.passed, predicted) == (True, None)
    (tmp_path / "bad.onnx").write_bytes(b"x")
    with pytest.raises(InputError, match=r"^mine is no model that ONNX Runtime can load"):
        check(tmp_path / "bad.onnx", sample(2))
    fixed = HEAD + "(float[n,3] x) => (float[m,6] y) <int64[2] shape = {1, 6}> { y = Reshape(x, shape) }"
    with pytest.raises(InputError, match=r"^mine can't run this input: .* \(time 3, batch 3\)$"):
        check(save(tmp_path / "fixed.onnx", fixed), Sample(name="time 3", inputs=(x[:3],), expected=(x[:3],)))


def test_a_file_that_ends_its_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(isolated, "_check", die)
    with pytest.raises(InputError) as caught:
        check(tmp_path / "m.onnx", sample(2))
    assert str(caught.value) == (
        "mine was not written: ONNX Runtime aborts, or lacks memory, when it loads and runs it; do this"
    )
