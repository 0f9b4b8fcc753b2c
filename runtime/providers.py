"""ONNX Runtime's execution providers: their names, and on which of them the operators of a graph run."""

from __future__ import annotations

from collections import Counter
from typing import Any

import onnxruntime as ort

from smx.errors import InputError

PROVIDERS = {
    "cpu": ("CPUExecutionProvider",),
    "cuda": ("CUDAExecutionProvider",),
    "tensorrt": ("TensorrtExecutionProvider", "CUDAExecutionProvider"),
    "openvino": ("OpenVINOExecutionProvider",),
    "coreml": ("CoreMLExecutionProvider",),
    "directml": ("DmlExecutionProvider",),
}
"""ONNX Runtime's names by ours. Of several, the second one runs the operators that the first one can't run."""

DEVICES = {"cuda": "cuda", "tensorrt": "cuda"}
"""The devices of the providers that have a memory of their own, in which tensors can stay between runs."""

PACKAGES = {
    "cuda": "onnxruntime-gpu",
    "tensorrt": "onnxruntime-gpu",
    "openvino": "onnxruntime-openvino",
    "coreml": "onnxruntime on macOS",
    "directml": "onnxruntime-directml on Windows",
}
"""The package that has a provider; it is installed instead of the plain onnxruntime."""


def execution_providers(provider: str) -> list[str]:
    """Return ONNX Runtime's names of a provider.

    Raises:
        InputError: there is no such provider, or it is not in this ONNX Runtime.
    """
    if provider not in PROVIDERS:
        raise InputError(f"unknown provider {provider!r}; known are {', '.join(PROVIDERS)}")
    available = ort.get_available_providers()
    if PROVIDERS[provider][0] not in available:
        names = ", ".join(name for name, full in PROVIDERS.items() if full[0] in available)
        raise InputError(
            f"the provider {provider!r} is not in this ONNX Runtime; available: {names}"
            f" (install {PACKAGES[provider]} instead of the plain package)"
        )
    return [full for full in PROVIDERS[provider] if full in available]


def check_assignments(name: str, provider: str, session: Any) -> None:
    """Refuse a graph that the provider does not run alone.

    Args:
        name: of the model, for the message.
        provider: a key of `PROVIDERS`.
        session: an `onnxruntime.InferenceSession` made with the option `session.record_ep_graph_assignment_info`.

    Raises:
        InputError: nodes fell back to another provider; they are named.
    """
    others: dict[str, Counter[str]] = {}
    for part in session.get_provider_graph_assignment_info():
        if part.ep_name not in PROVIDERS[provider]:
            others.setdefault(part.ep_name, Counter()).update(node.op_type for node in part.get_nodes())
    if others:
        where = "; ".join(
            f"{full}: " + ", ".join(f"{operator} ({count})" for operator, count in counts.most_common())
            for full, counts in others.items()
        )
        raise InputError(
            f"{name} does not run on {provider} alone, these operators fell back to {where};"
            " allow it with --allow-fallback (allow_fallback=True), or export it otherwise"
        )
