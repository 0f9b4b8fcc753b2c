"""The candidates of a bench that are made from one network: its layouts, its baselines, and PyTorch itself."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from smx.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

    from smx.torchrunner import TorchRunner
    from smx.workflows.network import NetworkLike


def export_candidates(
    network: NetworkLike,
    folder: Path,
    layouts: Iterable[str] = (),
    baselines: Iterable[str] = (),
    *,
    example_input: Tensor | tuple[Tensor, ...] | None = None,
    trust_code: bool = False,
    provider: str = "cpu",
    threads: int | None = 1,
    allow_fallback: bool = False,
    for_batch: int | None = None,
) -> dict[str, Path]:
    """Export a network in each layout, and with each fixed activation in place of its mixed layers.

    The baselines keep the network's weights, because latency does not depend on them.

    The layout `fastest` is searched for this provider, number of threads and batch size; see `smx.export.Search`.

    Returns:
        The files, which lie in `folder`, by the name of the layout or the activation.

    Raises:
        InputError: a layout or an activation is unknown, or the network can't be exported.
    """
    from smx import convert
    from smx.activations import get
    from smx.export import Search, export_onnx
    from smx.layers import Mixed
    from smx.models import Fixed
    from smx.workflows.network import open_network

    try:
        functions = {name: get(name).function for name in baselines}
    except ValueError as error:
        raise InputError(str(error)) from error
    opened = open_network(network, example_input, trust_code=trust_code)
    described = opened.saved.description() if opened.saved else None
    paths = {layout: folder / f"{layout}.onnx" for layout in layouts}
    for layout, path in paths.items():
        how: dict[str, Any] = {"provider": provider, "threads": threads, "allow_fallback": allow_fallback}
        search = Search(**how, for_batch=for_batch) if layout == "fastest" else None
        export_onnx(opened.module, path, example_input=opened.example, layout=layout, search=search, describe=described)
    for name, function in functions.items():
        baseline = copy.deepcopy(opened.module)
        mixed = [layer for layer in baseline.modules() if isinstance(layer, Mixed)]
        if not mixed:
            raise InputError(f"{opened.name} has no mixed layers that {name} could replace; bench it without baselines")
        paths[name] = folder / f"baseline-{name}.onnx"
        baseline = convert.replace(baseline, {layer: Fixed(function) for layer in mixed})
        export_onnx(baseline, paths[name], example_input=opened.example)
    return paths


def pytorch_runner(model_path: Path, *, trust_code: bool, **how: Any) -> TorchRunner:
    """Make the runner of a saved network in PyTorch, in the process that will run it."""
    from smx.modelfile import load_model
    from smx.torchrunner import TorchRunner

    return TorchRunner(lambda: load_model(model_path, trust_code=trust_code).build(), **how)
