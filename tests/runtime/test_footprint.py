from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from smx.errors import InputError
from smx.runtime.latency import footprint
from smx.runtime.latency.footprint import model_bytes, peak_memory
from tests.runtime.fakes import save, save_wide
from tests.timing.fakes import die

MEGABYTE = 10**6
X = [np.ones((1, 1), np.float32)]


@pytest.mark.parametrize("data", ["m[1].onnx.0123abcd.data", "m[1].onnx.data", "m[1].onnx_data"])
def test_weights_beside_the_file_count(data: str, tmp_path: Path) -> None:
    for other in ("m[1].onnx.76543210.data", "m1.onnx.data", "n.onnx.data"):
        (tmp_path / other).write_bytes(bytes(7))
    path = save_wide(tmp_path / "m[1].onnx", 1000, save_as_external_data=True, location=data, size_threshold=0)
    assert (tmp_path / data).stat().st_size == 4000
    assert model_bytes(path) == model_bytes(str(path)) == 4000 + path.stat().st_size


def test_weights_in_the_file(tmp_path: Path) -> None:
    path = save_wide(tmp_path / "m.onnx", 1000)
    assert model_bytes(path) == path.stat().st_size > 4000


def test_a_larger_model_takes_more_memory(tmp_path: Path) -> None:
    small = peak_memory(save_wide(tmp_path / "small.onnx", 1), X)
    large = peak_memory(save_wide(tmp_path / "large.onnx", 10_000_000), X)
    assert small is not None
    assert large is not None
    assert 0 < small < 20 * MEGABYTE, "the libraries do not count"
    assert large - small > 40 * MEGABYTE


def test_a_process_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=r"none\.onnx does not exist; expected an ONNX model"):
        peak_memory(tmp_path / "none.onnx", X)
    monkeypatch.setattr(footprint, "_measure", die)
    assert peak_memory(save(tmp_path / "m.onnx"), X) is None, "it was killed"


def test_how_systems_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    status = "Name:\tpython\nVmHWM:\t   85416 kB\nVmRSS:\t   1024 kB\n"
    monkeypatch.setattr(Path, "read_text", lambda path: status)
    assert footprint._peak() == 85416 * 1024
    resource = pytest.importorskip("resource")

    def absent(path: Path) -> str:
        raise FileNotFoundError

    monkeypatch.setattr(Path, "read_text", absent)
    monkeypatch.setattr(resource, "getrusage", lambda who: type("Usage", (), {"ru_maxrss": 3})())
    monkeypatch.setattr(sys, "platform", "linux")
    assert footprint._peak() == 3 * 1024
    monkeypatch.setattr(sys, "platform", "darwin")
    assert footprint._peak() == 3
    monkeypatch.setitem(sys.modules, "resource", None)
    assert footprint._peak() is None
