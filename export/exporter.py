"""The border of the compiler: from a module to a file that was checked before it took its place."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from smx import __version__, files
from smx.errors import InputError, ParityError, SmxError
from smx.export.capture import capture, describe_layers, expressions_of
from smx.export.compiler import LAYOUTS, compile
from smx.runtime.metadata import LayerInfo, ModelInfo
from smx.runtime.parity import ParityReport, compare
from smx.runtime.session import Session

OPSETS = range(18, 22)
"""18 is the version that PyTorch's exporter writes itself. From 22 on Elu and Selu have a version that ONNX Runtime
neither fuses into Gemm on the CPU nor runs on CUDA."""

BATCHES = (1, 2, 7)
"""Batch sizes at which every export is compared with PyTorch before it is written."""


@dataclass(frozen=True, kw_only=True)
class ExportReport:
    """What an export did.

    Attributes:
        path: of the file.
        layout: of the mixed layers.
        opset: version of the standard operators.
        bytes: size of the file.
        layers: the mixed layers and their groups.
        refusals: for each mixed layer that could not be brought into the layout, by its name scope, why; it stands in
            `scatter` instead.
        operators: how often each operator occurs in the graph.
        max_abs: the largest difference from PyTorch seen.
        seconds: duration.
    """

    path: str
    layout: str
    opset: int
    bytes: int
    layers: tuple[LayerInfo, ...]
    refusals: dict[str, str]
    operators: dict[str, int]
    max_abs: float
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        return asdict(self)


def export_onnx(
    module: nn.Module,
    path: str | os.PathLike[str],
    *,
    example_input: Tensor | tuple[Tensor, ...],
    layout: str = "scatter",
    opset: int = 18,
    atol: float = 1e-5,
    rtol: float = 1e-4,
    describe: Mapping[str, Any] | None = None,
) -> ExportReport:
    """Export a committed module to an ONNX file with a dynamic batch.

    The graph is validated by the ONNX checker with full shape inference and compared with PyTorch at several batch
    sizes; only then does it replace the file at `path`.

    Args:
        module: any module; its `Mixed` layers become groups of plain activations. It is run in `eval()`.
        path: of the file.
        example_input: a tensor (B, *), or one for each argument, of the shape and dtype that the model will take.
        layout: how mixed layers stand in the graph, a key of `smx.export.compiler.LAYOUTS`.
        opset: version of the standard operators, one of `OPSETS`.
        atol, rtol: tolerance towards PyTorch, see `smx.runtime.parity.compare`.
        describe: fields of `ModelInfo` for the metadata: `architecture`, `pool`, `class_names`, `sample_shape`,
            `maximum`.

    Raises:
        InputError: a layer is still selective, an activation has no ONNX form, a bad layout, opset or path, or
            weights that are not finite.
        ParityError: the graph and PyTorch disagree; nothing is written.
        SmxError: PyTorch's exporter can't convert the module, or the graph is not valid.
    """
    started = time.perf_counter()
    path = Path(path)
    example = example_input if isinstance(example_input, tuple) else (example_input,)
    if layout not in LAYOUTS:
        raise InputError(f"unknown layout {layout!r}; known are {', '.join(LAYOUTS)}")
    if opset not in OPSETS:
        raise InputError(f"opset must be between {OPSETS[0]} and {OPSETS[-1]}, got {opset}")
    files.check_writable(path)
    expressions = expressions_of(module)
    _check_finite(module)
    captured = capture(module, example, opset)
    layers = describe_layers(captured)
    try:
        compiled = compile(captured, layout, expressions)
    except ir.passes.PassError as error:
        raise SmxError(f"{type(module).__name__} can't be compiled: {error.__cause__ or error}") from error
    proto = _to_proto(compiled.model)
    report = _compare(module, proto, example, atol, rtol)
    if not report.passed:
        raise ParityError(f"{path} was not written: it differs from PyTorch by up to {report.max_abs:.3g}")
    info = ModelInfo(
        smx_version=__version__,
        architecture=type(module).__name__,
        layout=layout,
        pool=tuple(expressions),
        layers=layers,
        tolerance={"atol": atol, "rtol": rtol, "scale": report.scale, "max_abs": report.max_abs},
    )
    onnx.helper.set_model_props(proto, replace(info, **(describe or {})).to_properties())
    files.write_bytes(path, proto.SerializeToString(deterministic=True))
    return ExportReport(
        path=str(path),
        layout=layout,
        opset=opset,
        bytes=path.stat().st_size,
        layers=layers,
        refusals=compiled.refusals,
        operators=dict(Counter(node.op_type for node in proto.graph.node).most_common()),
        max_abs=report.max_abs,
        seconds=time.perf_counter() - started,
    )


def _to_proto(model: ir.Model) -> onnx.ModelProto:
    """Serialise, infer all shapes, and validate."""
    model.producer_name, model.producer_version = "smartmixed", __version__
    model.graph.name = "smartmixed"
    try:
        proto = onnx.shape_inference.infer_shapes(ir.to_proto(model), strict_mode=True, data_prop=True)
        onnx.checker.check_model(proto, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise SmxError(f"the exported graph is not valid: {' '.join(str(error).split())}") from error
    return proto


def _compare(
    module: nn.Module, proto: onnx.ModelProto, example: tuple[Tensor, ...], atol: float, rtol: float
) -> ParityReport:
    """Compare all outputs with PyTorch's: on the example, and on normal noise where the module is defined on it.

    The absolute tolerance is for outputs of unit size, and grows with the root mean square of larger ones.
    """
    session = Session(proto.SerializeToString())
    random = torch.Generator().manual_seed(0)
    comparisons = []
    was_training = module.training
    module.eval()
    try:
        for batch in BATCHES:
            tiled = tuple(x[torch.arange(batch, device=x.device) % len(x)] for x in example)
            noise = tuple(torch.randn(x.shape, generator=random).to(x) if x.is_floating_point() else x for x in tiled)
            for name, inputs in (("example", tiled), ("random", noise)):
                with torch.no_grad():
                    expected = _outputs(module, module(*inputs))
                if name == "random" and not all(np.isfinite(output).all() for output in expected):
                    continue
                got = session.run_all(*(x.cpu().numpy() for x in inputs))
                for a, b in zip(got, expected, strict=True):
                    scale = max(1.0, float(np.sqrt(np.mean(np.square(b, dtype=np.float64)))))
                    comparisons.append(compare(a, b, atol=atol, rtol=rtol, scale=scale, inputs=name, batch_size=batch))
    finally:
        module.train(was_training)
    return ParityReport(atol=atol, rtol=rtol, comparisons=tuple(comparisons))


def _outputs(module: nn.Module, output: Any) -> list[NDArray[Any]]:
    tensors = [output] if isinstance(output, Tensor) else output
    if not isinstance(tensors, list | tuple) or not all(isinstance(tensor, Tensor) for tensor in tensors):
        raise SmxError(
            f"{type(module).__name__} returns a {type(output).__name__};"
            " only a tensor or a tuple of tensors can be exported"
        )
    return [tensor.cpu().numpy() for tensor in tensors]


def _check_finite(module: nn.Module) -> None:
    for name, parameter in module.named_parameters():
        if not bool(torch.isfinite(parameter).all()):
            raise InputError(f"{name} has values that are not finite; such a model can't be exported")
