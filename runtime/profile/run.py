"""Run a model under ONNX Runtime's profiler."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

import onnxruntime as ort

from smx.errors import InputError
from smx.files import scratch
from smx.runtime.graph import nodes
from smx.runtime.profile.fold import Profile, fold
from smx.runtime.session import Session
from smx.runtime.settings import Settings

ONE_THREAD = Settings(threads=1)
WARM_UP = 10
"""Runs before those that count."""


@dataclass(frozen=True, kw_only=True)
class _Profiled(Settings):
    """Settings with the profiler on; the profile and the optimised graph go where these say."""

    profile: Path
    optimised: Path | None

    def to_options(self) -> ort.SessionOptions:
        options = super().to_options()
        options.enable_profiling = True
        options.profile_file_prefix = str(self.profile)
        options.optimized_model_filepath = str(self.optimised or "")
        return options


def profile(
    path: str | os.PathLike[str],
    batch_size: int,
    *,
    provider: str = "cpu",
    settings: Settings = ONE_THREAD,
    runs: int = 100,
    seed: int = 0,
) -> Profile:
    """Measure the time of a model by layer and operator; operators may fall back to the CPU.

    Args:
        path: of the file.
        batch_size: examples a run.
        provider: see `smx.runtime.providers.PROVIDERS`. On a GPU, ONNX Runtime records the time to launch a node.
        settings: of the session.
        runs: number of runs that count, after a warm-up.
        seed: of the inputs, see `Session.random_inputs`.

    Raises:
        InputError: the file is missing, is no ONNX model, or does not take random inputs of this batch size; or the
            provider is not available.
    """
    if runs < 1 or batch_size < 1:
        raise InputError(f"a profile needs at least 1 run of 1 example, got {runs} runs of {batch_size}")
    file = nodes(path)
    with scratch() as folder:
        prefix, optimised = folder / "profile", folder / "optimised.onnx"
        # A provider that compiles parts of the graph refuses to save it; the second try does not ask for it.
        for target in (optimised, None):
            profiled = _Profiled(**vars(settings), profile=prefix, optimised=target)
            try:
                session = Session(path, provider, settings=profiled, allow_fallback=True)
                break
            except InputError:
                if target is None:
                    raise
        inputs, info = session.random_inputs(batch_size, seed), session.info
        for _ in range(WARM_UP + runs):
            session.run_all(*inputs)
        events = json.loads(session.end_profiling().read_text())
        ran = nodes(optimised) if target else []
    mixed = [layer.name for layer in info.layers] if info else []
    return fold(events, file, ran, mixed=mixed, provider=provider, batch_size=batch_size, skip=WARM_UP)
