from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest

from smx.errors import InputError
from smx.runtime import session as session_module
from smx.runtime.providers import check_assignments, execution_providers
from smx.runtime.session import Session
from tests.runtime.fakes import HEAD, save

CPU, CUDA, TENSORRT = "CPUExecutionProvider", "CUDAExecutionProvider", "TensorrtExecutionProvider"
MIXED = HEAD + "(float[batch,3] x) => (float[batch,3] y) { a = Erf(x) b = Add(a, x) c = Add(x, b) y = MatMul(c, w) }"
MIXED = MIXED.replace("{ a", "<float[3,3] w = {1, 0, 0, 0, 1, 0, 0, 0, 1}> { a")


def available(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    monkeypatch.setattr(ort, "get_available_providers", lambda: list(names))


def test_names_of_onnx_runtime(monkeypatch: pytest.MonkeyPatch) -> None:
    assert execution_providers("cpu") == [CPU]
    available(monkeypatch, CPU, CUDA, TENSORRT)
    assert execution_providers("cuda") == [CUDA]
    assert execution_providers("tensorrt") == [TENSORRT, CUDA]
    available(monkeypatch, CPU, TENSORRT)
    assert execution_providers("tensorrt") == [TENSORRT]


@pytest.mark.parametrize("name", ["gpu", "CPU", "", CPU])
def test_unknown_providers(name: str) -> None:
    with pytest.raises(
        InputError, match=f"^unknown provider '{name}'; known are cpu, cuda, tensorrt, openvino, coreml"
    ):
        execution_providers(name)


@pytest.mark.parametrize(
    ("name", "package"),
    [
        ("cuda", "onnxruntime-gpu"), ("tensorrt", "onnxruntime-gpu"), ("openvino", "onnxruntime-openvino"),
        ("coreml", "onnxruntime on macOS"), ("directml", "onnxruntime-directml on Windows"),
    ],
)  # fmt: skip
def test_providers_that_are_not_installed(name: str, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    available(monkeypatch, "AzureExecutionProvider", CPU)
    with pytest.raises(InputError) as caught:
        execution_providers(name)
    assert str(caught.value) == (
        f"the provider {name!r} is not in this ONNX Runtime; available: cpu (install {package} instead of the plain"
        " package)"
    )


class Part:
    """What ONNX Runtime says of a part of the graph."""

    def __init__(self, ep_name: str, *operators: str) -> None:
        self.ep_name, self.operators = ep_name, operators

    def get_nodes(self) -> list[Any]:
        return [type("Node", (), {"op_type": operator})() for operator in self.operators]


def check(provider: str, *parts: Part) -> None:
    check_assignments("m.onnx", provider, type("Fake", (), {"get_provider_graph_assignment_info": lambda _: parts})())


def test_operators_that_fell_back_are_named() -> None:
    on_gpu = Part(CUDA, "MatMul"), Part(TENSORRT, "Add", "Add")
    check("tensorrt", *on_gpu)
    check("cuda", on_gpu[0])
    check("cuda")
    with pytest.raises(InputError) as caught:
        check("cuda", Part(CPU, "Add"), on_gpu[0], Part(CPU, "Erf", "Add"), Part("Other", "A"))
    assert str(caught.value) == (
        f"m.onnx does not run on cuda alone, these operators fell back to {CPU}: Add (2), Erf (1); Other: A (1); allow"
        " it with --allow-fallback (allow_fallback=True), or export it otherwise"
    )
    with pytest.raises(InputError, match=rf"does not run on cuda alone, .* {TENSORRT}: Add \(2\); allow"):
        check("cuda", *on_gpu)


def test_a_session_that_fell_back_is_refused_unless_allowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a GPU whose provider takes none of the nodes: ONNX Runtime itself tells where they went."""
    monkeypatch.setattr(session_module, "execution_providers", lambda provider: [CPU])
    path = save(tmp_path / "m.onnx", MIXED)
    with pytest.raises(InputError, match=rf"m\.onnx does not run on cuda alone, .*{CPU}: .*Add \(2\).*Erf \(1\)"):
        Session(path, "cuda")
    session = Session(path, "cuda", allow_fallback=True)
    assert session.provider == "cuda"
    x = np.array([[0.0, 1, -1]])
    erf = np.array([[0, 0.8427007929, -0.8427007929]])
    np.testing.assert_allclose(session.run(x), erf + 2 * x, rtol=1e-6)
    Session(path)  # on the CPU there is nothing to fall back to, and nothing is recorded
    monkeypatch.setattr(session_module, "check_assignments", None)
    Session(path)
