"""The border of the compiler: from a module to a file that was checked before it took its place."""

from __future__ import annotations

import os
import secrets
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import torch
from numpy.typing import NDArray
from onnx_ir.passes import common
from torch import Tensor, nn

from smx import __version__, files
from smx.errors import InputError, ParityError, SmxError
from smx.export.capture import attach, capture, describe_layers, expressions_of
from smx.export.compiler import LAYOUTS, PassReport, compile
from smx.export.opsets import OPSETS, convert
from smx.export.precision import PRECISIONS, changed_predictions, to_float16, to_int8
from smx.runtime.metadata import LayerInfo, ModelInfo
from smx.runtime.parity import ParityReport, compare
from smx.runtime.session import Session

CAPTURED = range(18, 26)
"""The opsets that PyTorch's exporter writes; what lies outside is converted from the nearest."""

BATCHES = (1, 2, 7)
"""Batch sizes at which an export that takes any is compared with PyTorch before it is written."""

LARGE = 2**31 - 2**24
"""From so many bytes of weights on they lie in a file of their own: one protobuf message ends at 2 GiB."""


@dataclass(frozen=True, kw_only=True)
class ExportReport:
    """What an export did.

    Attributes:
        path: of the file.
        layout: of the mixed layers.
        batch: the batch size that the file is made for; None if it takes any.
        opset: version of the standard operators.
        precision: of the weights and the arithmetic.
        bytes: size of the file, with the weights that lie beside it.
        layers: the mixed layers and their groups.
        passes: what each pass of the compiler did, and what it had to leave.
        operators_before: how often each operator occurs in what PyTorch's exporter made, where each mixed layer is one
            MixedActivation.
        operators: how often each operator occurs in the file.
        other_layouts: how often each operator would occur in the other layouts.
        max_abs: the largest difference from PyTorch seen, before the precision was lowered.
        predictions: how many examples the float32 model and this one were compared on; 0 for float32.
        changed: how many of them got another class.
        seconds: duration.
    """

    path: str
    layout: str
    batch: int | None
    opset: int
    precision: str
    bytes: int
    layers: tuple[LayerInfo, ...]
    passes: tuple[PassReport, ...]
    operators_before: dict[str, int]
    operators: dict[str, int]
    other_layouts: dict[str, dict[str, int]]
    max_abs: float
    predictions: int
    changed: int
    seconds: float

    def refusals(self, name: str) -> dict[str, str]:
        """Return what the passes of this name had to leave, by name scope, and why."""
        return {scope: why for step in self.passes if step.name == name for scope, why in step.refusals.items()}

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        return asdict(self)


def export_onnx(
    module: nn.Module,
    path: str | os.PathLike[str],
    *,
    example_input: Tensor | tuple[Tensor, ...],
    layout: str = "scatter",
    batch: int | None = None,
    opset: int = 18,
    precision: str = "float32",
    calibration: NDArray[Any] | None = None,
    evaluation: NDArray[Any] | None = None,
    atol: float = 1e-5,
    rtol: float = 1e-4,
    describe: Mapping[str, Any] | None = None,
) -> ExportReport:
    """Export a committed module to an ONNX file.

    The graph is validated by the ONNX checker with full shape inference and compared with PyTorch, at several batch
    sizes if it takes any; only then does it replace the file at `path`. Weights of about 2 GB and more lie in a second
    file beside it.

    Args:
        module: any module; its `Mixed` layers become groups of plain activations. It is run in `eval()`.
        path: of the file.
        example_input: a tensor (B, *), or one for each argument, of the shape and dtype that the model will take.
        layout: how mixed layers stand in the graph, a key of `smx.export.compiler.LAYOUTS`.
        batch: make the file for this batch size alone; None lets it take any.
        opset: version of the standard operators, one of `smx.export.opsets.OPSETS`.
        precision: one of `smx.export.precision.PRECISIONS`; the comparison with PyTorch is made in float32, before.
        calibration: for int8, examples (B, *) that show how large values become.
        evaluation: for lower precision, examples (B, *) on which the changed predictions are counted.
        atol, rtol: tolerance towards PyTorch, see `smx.runtime.parity.compare`.
        describe: fields of `ModelInfo` for the metadata: `architecture`, `pool`, `class_names`, `sample_shape`,
            `maximum`.

    Raises:
        InputError: a layer is still selective, an activation has no ONNX form, a bad layout, batch, opset, precision
            or path, an operator that needs a later opset, no calibration data, or weights that are not finite.
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
    if batch is not None and batch < 1:
        raise InputError(f"the batch size must be at least 1, got {batch}")
    if precision not in PRECISIONS:
        raise InputError(f"unknown precision {precision!r}; known are {', '.join(PRECISIONS)}")
    if precision == "int8" and calibration is None:
        raise InputError("int8 needs examples to calibrate on; give calibration=x, an array (B, *) of training data")
    files.check_writable(path)
    functions = expressions_of(module)
    _check_finite(module)
    captured = min(max(opset, CAPTURED[0]), CAPTURED[-1])
    model = capture(module, example, captured, batch)
    attach(model, functions)
    layers, before = describe_layers(model), _operators(model)
    compiled: dict[str, ir.Model] = {other: model.clone() for other in LAYOUTS if other != layout} | {layout: model}
    try:
        passes = {name: compile(variant, name) for name, variant in compiled.items()}[layout]
    except ir.passes.PassError as error:
        raise SmxError(f"{type(module).__name__} can't be compiled: {error.__cause__ or error}") from error
    others = {name: _operators(variant) for name, variant in compiled.items() if name != layout}
    del compiled
    _finish(model)
    info = ModelInfo(
        smx_version=__version__,
        architecture=type(module).__name__,
        layout=layout,
        pool=tuple(functions),
        layers=layers,
        precision=precision,
        tolerance={},
    )
    changed = 0
    with _weights_beside(model, path) as beside, files.replacing(path) as draft:
        if beside and (opset != captured or precision != "float32"):
            raise InputError(
                f"a model above 2 GB can only be exported in float32 and at opset {CAPTURED[0]} to {CAPTURED[-1]},"
                f" got {precision} and opset {opset}"
            )
        proto = ir.to_proto(model) if opset == captured else convert(ir.to_proto(model), opset)
        draft.write_bytes(proto.SerializeToString())
        session = Session(draft)
        parity = _compare(module, session, example, (batch,) if batch else BATCHES, atol, rtol)
        if not parity.passed:
            raise ParityError(f"{path} was not written: it differs from PyTorch by up to {parity.max_abs:.3g}")
        tolerance = {"atol": atol, "rtol": rtol, "scale": parity.scale, "max_abs": parity.max_abs}
        if precision != "float32":
            proto = to_float16(proto) if calibration is None or precision == "float16" else to_int8(proto, calibration)
            if evaluation is not None:
                lowered = Session(proto.SerializeToString())
                changed = changed_predictions(session.run_many(evaluation, 1000), lowered.run_many(evaluation, 1000))
        properties = replace(info, **{"tolerance": tolerance, **(describe or {})}).to_properties()
        onnx.helper.set_model_props(proto, properties)
        draft.write_bytes(proto.SerializeToString(deterministic=True))
    return ExportReport(
        path=str(path),
        layout=layout,
        batch=batch,
        opset=opset,
        precision=precision,
        bytes=path.stat().st_size + (beside.stat().st_size if beside else 0),
        layers=layers,
        passes=passes,
        operators_before=before,
        operators=dict(Counter(node.op_type for node in proto.graph.node).most_common()),
        other_layouts=others,
        max_abs=parity.max_abs,
        predictions=len(evaluation) if evaluation is not None and precision != "float32" else 0,
        changed=changed,
        seconds=time.perf_counter() - started,
    )


def _operators(model: ir.Model) -> dict[str, int]:
    return dict(Counter(node.op_type for node in model.graph).most_common())


def _finish(model: ir.Model) -> None:
    """Write the header, with the oldest IR version that goes with the opset; infer all shapes, and validate."""
    model.producer_name, model.producer_version = "smartmixed", __version__
    model.graph.name = "smartmixed"
    model.ir_version = onnx.helper.find_min_ir_version_for([onnx.helper.make_opsetid("", model.opset_imports[""])])
    for value in (*model.graph.inputs, *(output for node in model.graph for output in node.outputs)):
        value.metadata_props.clear()  # PyTorch's notes to itself
    try:
        common.CheckerPass(full_check=True)(model)
    except (ir.passes.PassError, onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        reason = " ".join(str(error.__cause__ or error).split())
        raise SmxError(f"the exported graph is not valid: {reason}") from error
    common.ShapeInferencePass()(model)


@contextmanager
def _weights_beside(model: ir.Model, path: Path) -> Iterator[Path | None]:
    """Move the weights of a large model into a file of a new name, and remove the one of the export before it.

    The old model and its weights stay whole until the new model has taken its place.
    """
    weights = [value.const_value for value in model.graph.initializers.values() if value.const_value is not None]
    if sum(weight.nbytes for weight in weights) < LARGE:
        yield None
        return
    old = set(path.parent.glob(f"{path.name}.*.data"))
    beside = path.with_name(f"{path.name}.{secrets.token_hex(4)}.data")
    try:
        # What is small stays: shape inference reads the sizes of Split and the shapes of Reshape.
        ir.external_data.unload_from_model(model, path.parent, beside.name, size_threshold_bytes=1024)
        yield beside
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
    for file in old:
        file.unlink()


def _compare(
    module: nn.Module,
    session: Session,
    example: tuple[Tensor, ...],
    batch_sizes: tuple[int, ...],
    atol: float,
    rtol: float,
) -> ParityReport:
    """Compare all outputs with PyTorch's: on the example, and on normal noise where the module is defined on it.

    The absolute tolerance is for outputs of unit size, and grows with the root mean square of larger ones.
    """
    random = torch.Generator().manual_seed(0)
    comparisons = []
    was_training = module.training
    module.eval()
    try:
        for batch in batch_sizes:
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
