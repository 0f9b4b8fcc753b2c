"""ONNX Runtime's execution providers: which there are, and which of them a graph's operators really run on."""

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
"""By the names that people use; where there are several, what the first one can't run goes to the next."""

DEVICES = {"cuda": "cuda", "tensorrt": "cuda"}
"""Where tensors can stay between runs, for the providers that have memory of their own."""

PACKAGES = {
    "cuda": "onnxruntime-gpu",
    "tensorrt": "onnxruntime-gpu",
    "openvino": "onnxruntime-openvino",
    "coreml": "onnxruntime on macOS",
    "directml": "onnxruntime-directml on Windows",
}
"""Which package brings a provider; each replaces the plain onnxruntime."""


def execution_providers(provider: str) -> list[str]:
    """Return ONNX Runtime's names of a provider.

    Raises:
        InputError: there is no such provider, or it is not in this ONNX Runtime.
    """
    if provider not in PROVIDERS:
        raise InputError(f"unknown provider {provider!r}; known are {', '.join(PROVIDERS)}")
    there = ort.get_available_providers()
    if PROVIDERS[provider][0] not in there:
        available = ", ".join(name for name, full in PROVIDERS.items() if full[0] in there)
        raise InputError(
            f"the provider {provider!r} is not in this ONNX Runtime; available: {available}"
            f" (install {PACKAGES[provider]} instead of the plain package)"
        )
    return [full for full in PROVIDERS[provider] if full in there]


def assignments(session: Any) -> dict[str, Counter[str]]:
    """Tell which operators run on which execution provider, and how many nodes of each.

    Args:
        session: an InferenceSession made with `record_assignments`.
    """
    found: dict[str, Counter[str]] = {}
    for part in session.get_provider_graph_assignment_info():
        found.setdefault(part.ep_name, Counter()).update(node.op_type for node in part.get_nodes())
    return found


def record_assignments(options: Any) -> None:
    """Let a session that is made with these options remember which provider each node went to."""
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")


def check_assignments(name: str, provider: str, found: dict[str, Counter[str]]) -> None:
    """Refuse a graph that is not run by the provider alone.

    Raises:
        InputError: nodes fell back to another provider; they are named.
    """
    wanted = PROVIDERS[provider]
    fallen = {full: operators for full, operators in found.items() if full not in wanted}
    if fallen:
        where = "; ".join(
            f"{full}: " + ", ".join(f"{operator} ({count})" for operator, count in operators.most_common())
            for full, operators in fallen.items()
        )
        raise InputError(
            f"{name} does not run on {provider} alone, these operators fell back to {where};"
            " allow it with --allow-fallback (allow_fallback=True), or export it otherwise"
        )
