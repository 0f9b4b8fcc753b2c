"""What `smx bench` measures beside each other, made of one saved model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from smx.errors import InputError

if TYPE_CHECKING:
    from smx.torchrunner import TorchRunner


def export_candidates(
    model_path: Path, folder: Path, layouts: tuple[str, ...], baselines: tuple[str, ...], *, trust_code: bool = False
) -> dict[str, Path]:
    """Export a saved model in each layout, and its architecture with each fixed activation; return the files by name.

    The baselines are plain modules with the model's weights, as PyTorch's exporter writes them: latency does not depend
    on the weights' values.
    """
    from smx.activations import get
    from smx.convert import replace
    from smx.export import export_onnx
    from smx.layers import Mixed
    from smx.modelfile import load_model
    from smx.models import Fixed

    saved = load_model(model_path, trust_code=trust_code)
    trained = saved.build()
    paths = {}
    for layout in layouts:
        paths[layout] = folder / f"{layout}.onnx"
        export_onnx(
            trained,
            paths[layout],
            example_input=saved.example_input(),
            layout=layout,
            describe=saved.description(),
        )
    for name in baselines:
        try:
            function = get(name).function
        except ValueError as error:
            raise InputError(str(error)) from error
        model = saved.build()
        model = replace(model, {layer: Fixed(function) for layer in model.modules() if isinstance(layer, Mixed)})
        paths[name] = folder / f"baseline-{name}.onnx"
        export_onnx(model, paths[name], example_input=saved.example_input())
    return paths


def pytorch_runner(model_path: Path, **options: Any) -> TorchRunner:
    """Make the runner of a saved model in PyTorch, in the process that will run it: here nothing loads torch."""
    from smx.modelfile import load_model
    from smx.torchrunner import TorchRunner

    return TorchRunner(lambda: load_model(model_path).build(), **options)
