"""Run a model under ONNX Runtime's profiler."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

import onnxruntime as ort

from smx.errors import InputError, one_line
from smx.runtime.graph import NodeInfo, nodes
from smx.runtime.metadata import ModelInfo
from smx.runtime.profile.fold import FallenBack as FallenBack
from smx.runtime.profile.fold import Profile as Profile
from smx.runtime.profile.fold import ProfileRow as ProfileRow
from smx.runtime.profile.fold import fold
from smx.runtime.providers import execution_providers
from smx.runtime.session import random_inputs
from smx.runtime.settings import Settings

ONE_THREAD = Settings(threads=1)
WARM_UP = 10
"""Runs before those that count."""


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
        seed: of the inputs, see `smx.runtime.session.random_inputs`.

    Raises:
        InputError: the file is missing, is no ONNX model, or does not take random inputs of this batch size; or the
            provider is not available.
    """
    if runs < 1 or batch_size < 1:
        raise InputError(f"a profile needs at least 1 run of 1 example, got {runs} runs of {batch_size}")
    file = nodes(path)
    with tempfile.TemporaryDirectory() as folder:
        session, optimised = _start(path, provider, settings, Path(folder))
        wanted = session.get_inputs()
        inputs = random_inputs(str(path), wanted, batch_size, seed)
        try:
            info = ModelInfo.from_properties(session.get_modelmeta().custom_metadata_map)
            feed = dict(zip([each.name for each in wanted], inputs, strict=True))
            for _ in range(WARM_UP + runs):
                session.run(None, feed)
        except Exception as error:  # onnxruntime's errors share no public base class
            raise InputError(f"{path} can't be profiled: {one_line(error)}") from error
        events = json.loads(Path(session.end_profiling()).read_text())
    mixed = [layer.name for layer in info.layers] if info is not None else []
    return fold(events, file, optimised, mixed=mixed, provider=provider, batch_size=batch_size, skip=WARM_UP)


def _start(path: str | os.PathLike[str], provider: str, settings: Settings, folder: Path) -> tuple[Any, list[NodeInfo]]:
    """Return a session that writes its profile into the folder, and the nodes that it runs, if it can save them."""
    wanted = execution_providers(provider)
    options = settings.to_options()
    options.enable_profiling = True
    options.profile_file_prefix = str(folder / "profile")
    # A provider that compiles parts of the graph refuses to save it; the second try does not ask for it.
    for optimised in (str(folder / "optimised.onnx"), ""):
        options.optimized_model_filepath = optimised
        try:
            session = ort.InferenceSession(path, options, providers=wanted, enable_fallback=0)
            break
        except Exception as error:
            if not optimised:
                raise InputError(f"{path} is no model that ONNX Runtime can load: {one_line(error)}") from error
    if (used := session.get_providers()[0]) != wanted[0]:
        raise InputError(f"{provider} could not be started by ONNX Runtime, which fell back to {used}")
    return session, nodes(optimised) if optimised else []
