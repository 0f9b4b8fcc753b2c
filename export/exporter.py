"""`export_onnx`: from a module to a file, which replaces an old one only after it was checked."""

from __future__ import annotations

import math
import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import onnx
import onnx_ir as ir
from numpy.typing import NDArray
from onnx_ir.passes import common
from torch import Tensor, nn

from smx import __version__, files
from smx.calling import Flat
from smx.errors import InputError, ParityError, SmxError, one_line
from smx.example_input import ExampleInput
from smx.export import sizes
from smx.export.capture import (
    attach,
    batched,
    capture,
    choose_forms,
    describe_layers,
    expressions_of,
    name_ends,
    simplify,
)
from smx.export.checks import check_weights, flattened, new_names, samples
from smx.export.compiler import LAYOUTS, PassReport, compile
from smx.export.external_data import external_weights, is_large
from smx.export.fastest import Fastest, Search
from smx.export.forms import check_forms
from smx.export.opsets import OPSETS, convert, oldest_ir_version
from smx.export.precision import PRECISIONS, changed_predictions, lowered
from smx.export.provenance import with_provenance
from smx.export.searching import find_fastest
from smx.export.sizes import Dynamic
from smx.export.sort import sort_neurons
from smx.runtime.digest import sealed
from smx.runtime.metadata import LayerInfo, ModelInfo
from smx.runtime.parity.check import ParityReport
from smx.runtime.parity.isolated import AbortError, check_isolated

CAPTURED = range(18, 26)
"""The opsets that PyTorch's exporter writes; what lies outside is converted from the nearest."""

FASTEST = "fastest"
"""The layout that is one of the others, or `sorted` with a form for each layer: what was measured to be fastest."""

BATCHES = (1, 2, 7)
"""Batch sizes at which an export that takes any is compared with PyTorch before it is written."""


@dataclass(frozen=True, kw_only=True)
class ExportReport:
    """What an export did.

    Attributes:
        path, layout, batch, opset, precision: as they were given to `export_onnx`.
        bytes: size of the file, with the weights that lie beside it.
        layers: the mixed layers and their groups.
        passes: what each pass of the compiler did, and what it had to leave.
        operators_before: how often each operator occurs in what PyTorch's exporter made, where each mixed layer is one
            MixedActivation.
        operators: how often each operator occurs in the file.
        advice: what another layout would save, on one line; None where there is nothing to say.
        max_abs: the largest difference from PyTorch seen, before the precision was lowered.
        predictions: how many examples the float32 model and this one were compared on; 0 for float32.
        changed: how many of them got another class.
        fastest: what the search of the layout `fastest` found; None for other layouts.
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
    advice: str | None
    max_abs: float
    predictions: int
    changed: int
    fastest: Fastest | None
    seconds: float

    def refusals(self, name: str) -> dict[str, str]:
        """Return what the passes of this name had to leave, by name scope, and why."""
        return {scope: why for step in self.passes if step.name == name for scope, why in step.refusals.items()}

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        return asdict(self)


def advice(layout: str, layers: Sequence[LayerInfo]) -> str | None:
    """Return what the layout `sorted` would save, on one line, by counting groups: nothing is compiled for it.

    `scatter` has a Gather and a ScatterElements for each group of the layers that have several; None where it has none.
    """
    groups = sum(len(layer.groups) for layer in layers if len(layer.groups) > 1)
    if layout != "scatter" or not groups:
        return None
    return (
        "layout sorted, recommended for serving, needs one Split and one Concat for each mixed layer whose neurons can"
        f" be reordered, instead of {groups} Gather and {groups} ScatterElements in all; smx bench times both"
    )


def export_onnx(
    module: nn.Module,
    path: str | os.PathLike[str],
    *,
    example_input: ExampleInput | None = None,
    layout: str = "scatter",
    search: Search | None = None,
    batch: int | None = None,
    dynamic: Dynamic | None = None,
    input_names: Sequence[str] | None = None,
    output_names: Sequence[str] | None = None,
    opset: int = 18,
    precision: str = "float32",
    calibration: NDArray[Any] | None = None,
    evaluation: NDArray[Any] | None = None,
    atol: float = 1e-5,
    rtol: float = 1e-4,
    describe: Mapping[str, Any] | None = None,
) -> ExportReport:
    """Export a committed module to an ONNX file.

    The ONNX checker validates the graph with full shape inference. A process of its own loads it in ONNX Runtime and
    compares it with PyTorch, at several batch sizes if it takes any, and at two lengths of each dynamic axis. Only then
    does it replace the file at `path`. Weights of about 2 GB and more are external data, in a second file beside it.

    Args:
        module: any module; its `Mixed` layers become groups of plain activations. It is run in `eval()`, on a copy
            that shares the weights. What torch.compile or DataParallel put around it is left away.
        path: of the file.
        example_input: a tensor or array (B, *), or a tuple of one for each argument, of the shape and dtype that the
            model will take; arguments by name in a dict, which may end the tuple. What is no tensor, as a flag or None,
            is a constant of the file. None: zeros (2, N), if the first layer is a Linear or BatchNorm1d that takes N
            features.
        layout: how mixed layers stand in the graph, a key of `smx.export.compiler.LAYOUTS`, or `fastest`, which
            measures the forms that a layer can have, in about a minute.
        search: how `fastest` is searched; None is `Search()`.
        batch: make the file for this batch size alone; None lets it take any.
        dynamic: axes beside the batch that the file takes in any length: their names, by input (its name in the file,
            or that of the forward's parameter) and axis: `{"x": {1: "time"}}`. Axes of one name have one length.
        input_names, output_names: of the file; None: arguments by name and entries of dicts and dataclasses have their
            own, others are `input` (`input0`, `input1`, ... if there are several) and `output`.
        opset: version of the standard operators, one of `smx.export.opsets.OPSETS`.
        precision: one of `smx.export.precision.PRECISIONS`; the comparison with PyTorch is made in float32, before.
        calibration: for int8, examples (B, *) that show how large values become.
        evaluation: for lower precision, examples (B, *) on which the changed predictions are counted.
        atol, rtol: tolerance towards PyTorch, see `smx.runtime.check_parity`.
        describe: fields of `ModelInfo` for the metadata: `architecture`, `pool`, `class_names`, `sample_shape`,
            `maximum`.

    Raises:
        InputError: a layer is still selective, an activation has no ONNX form, a bad layout, batch, opset, precision
            or path, dynamic axes or names that do not fit, an activation whose ONNX form is another function, a module
            that can't be copied, an operator that needs a later opset, no calibration data, weights that are not
            finite, or a graph that ONNX Runtime can't load and run.
        ParityError: the graph and PyTorch disagree; nothing is written.
        SmxError: PyTorch's exporter can't convert the module, or the graph is not valid.
    """
    started = time.perf_counter()
    path = Path(path)
    if path.suffix != ".onnx":  # a slip would replace a file of another kind
        raise InputError(f"{path} must end in .onnx")
    _check_options(layout, search, batch, opset, precision, calibration, evaluation, {"atol": atol, "rtol": rtol})
    flat = flattened(module, example_input)
    module, example = flat.module, flat.example
    weights = {name for name, _ in (*module.named_parameters(), *module.named_buffers())}
    flat.names = new_names(input_names, flat.names, weights, "input")
    axes = sizes.read(dynamic or {}, flat, batch)
    if layout == FASTEST and any(own.keys() - {0} for own in axes):
        raise InputError("the layout fastest is searched at fixed sizes; leave out dynamic, or export it as sorted")
    files.check_writable(path)
    functions = expressions_of(module)
    check_weights(module)
    check_forms(module)
    others = sizes.others(flat, batched(example, batch or 2), axes)
    examples = [("example", batched(example, size)) for size in ((batch,) if batch else BATCHES)]
    expected, outputs = samples(flat, [*examples, *others])
    flat.results = new_names(output_names, outputs, {*weights, *flat.names}, "output")
    captured = min(max(opset, CAPTURED[0]), CAPTURED[-1])
    captured_on = batched(sizes.longer(example, axes), batch)
    model = capture(flat, captured_on, captured, batch, axes)
    attach(model, functions)
    if is_large(model) and layout == FASTEST:
        raise InputError("a model above 2 GB can't be searched for the layout fastest; export it as sorted")
    if is_large(model) and (opset != captured or precision != "float32"):
        raise InputError(
            f"a model above 2 GB can only be exported in float32 and at opset {CAPTURED[0]} to {CAPTURED[-1]},"
            f" got {precision} and opset {opset}"
        )
    layers = describe_layers(model)
    predicted_on = None if precision == "float32" else evaluation
    check = partial(check_isolated, samples=expected, name=str(path), atol=atol, rtol=rtol, evaluation=predicted_on)

    def finished(model: ir.Model) -> onnx.ModelProto:
        proto = ir.to_proto(model) if opset == captured else convert(ir.to_proto(model), opset)
        if any(own.keys() - {0} for own in axes):  # the example's sizes may stand there, and ONNX Runtime trusts them
            proto.graph.ClearField("value_info")
        return proto

    def built(shifts: bool, layout: str, forms: Mapping[str, str]) -> tuple[onnx.ModelProto, tuple[LayerInfo, ...]]:
        variant = model.clone()
        _compile(variant, flat, captured_on, layout, forms, shifts=shifts and layout == "sorted")
        return finished(variant), with_provenance(variant, layers)

    def write(model: ir.Model) -> tuple[ParityReport, onnx.ModelProto, int, int]:
        """Compare with PyTorch, lower the precision, and write; return also the changed predictions and the bytes."""
        with external_weights(model, Path(os.path.realpath(path))) as beside, files.replacing(path) as draft:
            proto = finished(model)
            draft.write_bytes(proto.SerializeToString())
            half = any(weight.dtype.itemsize < 4 for weight in module.parameters() if weight.is_floating_point())
            way_out = "export module.float()" if half else "try the other layout or another opset"
            parity, predicted = check(draft, otherwise=way_out)
            if not parity.passed:
                worst = max(parity.comparisons, key=lambda found: (not found.passed, found.max_abs))
                raise ParityError(
                    f"{path} was not written: it differs from PyTorch by up to {worst.max_abs:.3g}"
                    f" ({worst.inputs}, batch {worst.batch_size}, {worst.output})"
                )
            changed = 0
            if precision != "float32":
                proto, lower = _first_that_loads(lowered(proto, precision, calibration), draft, check)
                if predicted is not None and lower is not None:
                    changed = changed_predictions(predicted, lower)
            found = ModelInfo(
                smx_version=__version__,
                architecture=type(module).__name__,
                layout=layout,
                chosen=fastest.reasons() if fastest else (),
                pool=tuple(functions),
                layers=with_provenance(model, layers),
                precision=precision,
                tolerance={"atol": atol, "rtol": rtol, "scale": parity.scale, "max_abs": parity.max_abs},
            )
            onnx.helper.set_model_props(proto, replace(found, **(describe or {})).to_properties())
            draft.write_bytes(sealed(proto.SerializeToString(deterministic=True), beside))
        return parity, proto, changed, path.stat().st_size + (beside.stat().st_size if beside else 0)

    fastest = None
    # Shifts cost precision in some networks, and wherever arithmetic is coarser than float32.
    for shifts in (True, False) if layout != "scatter" and precision == "float32" else (False,):
        if layout == FASTEST:
            fastest = find_fastest(partial(built, shifts), layers, search or Search(), batch)
        compiled, forms = (fastest.layout, fastest.forms) if fastest else (layout, {})
        variant = model.clone()
        before, passes = _compile(variant, flat, captured_on, compiled, forms, shifts=shifts and compiled == "sorted")
        try:
            parity, proto, changed, size = write(variant)
            break
        except ParityError:
            if not shifts:
                raise
    return ExportReport(
        path=str(path),
        layout=layout,
        batch=batch,
        opset=opset,
        precision=precision,
        bytes=size,
        layers=layers,
        passes=passes,
        operators_before=before,
        operators=dict(Counter(node.op_type for node in proto.graph.node).most_common()),
        advice=advice(layout, layers),
        max_abs=parity.max_abs,
        predictions=0 if predicted_on is None else len(predicted_on),
        changed=changed,
        fastest=fastest,
        seconds=time.perf_counter() - started,
    )


def _first_that_loads(
    protos: Iterable[onnx.ModelProto], draft: Path, check: Callable[..., tuple[ParityReport, NDArray[Any] | None]]
) -> tuple[onnx.ModelProto, NDArray[Any] | None]:
    """Write the first model that ONNX Runtime does not abort for; return it with its predictions."""
    aborted: AbortError | None = None
    for proto in protos:
        draft.write_bytes(proto.SerializeToString())
        try:
            return proto, check(draft, otherwise="export it in float32")[1]
        except AbortError as error:
            aborted = error
    assert aborted is not None
    raise aborted


def _check_options(
    layout: str,
    search: Search | None,
    batch: int | None,
    opset: int,
    precision: str,
    calibration: NDArray[Any] | None,
    evaluation: NDArray[Any] | None,
    tolerances: Mapping[str, float],
) -> None:
    for name, tolerance in tolerances.items():
        if not 0 <= tolerance < math.inf:
            raise InputError(f"{name} must be a number from 0 on, got {tolerance}")
    for name, value, known in (("layout", layout, (*LAYOUTS, FASTEST)), ("precision", precision, PRECISIONS)):
        if value not in known:
            raise InputError(f"unknown {name} {value!r}; known are {', '.join(known)}")
    if opset not in OPSETS:
        raise InputError(f"opset must be between {OPSETS[0]} and {OPSETS[-1]}, got {opset}")
    if batch is not None and (not isinstance(batch, int) or batch < 1):
        raise InputError(f"the batch size must be a whole number from 1, got {batch}")
    if layout == FASTEST and precision != "float32":
        raise InputError(f"the layout fastest is searched in float32 alone, got {precision}; export it as sorted")
    if layout != FASTEST and search is not None:
        raise InputError(f"only the layout fastest is searched, got settings of a search for {layout}")
    if precision == "int8" and calibration is None:
        raise InputError("int8 needs examples to calibrate on; give calibration=x, an array (B, *) of training data")
    for name, examples in (("calibration", calibration), ("evaluation", evaluation)):
        if examples is not None and (not examples.ndim or not len(examples)):
            raise InputError(f"{name} must be an array (B, *), with B at least 1, got shape {examples.shape}")


def _compile(
    model: ir.Model,
    flat: Flat,
    example: tuple[Tensor, ...],
    layout: str,
    forms: Mapping[str, str],
    *,
    shifts: bool,
) -> tuple[dict[str, int], tuple[PassReport, ...]]:
    """Compile a captured model in place, and validate it; return its operators before, and what each pass did."""
    choose_forms(model, forms)
    try:
        if layout == "sorted":
            sort_neurons(model, flat.module, flat.arguments(*example), shifts=shifts)
        simplify(model)
        before = dict(Counter(node.op_type for node in model.graph).most_common())
        passes = compile(model, layout, shifts=shifts)
    except ir.passes.PassError as error:
        raise SmxError(f"{type(flat.module).__name__} can't be compiled: {error.__cause__ or error}") from error
    name_ends(model, flat.names, flat.results)
    model.producer_name, model.producer_version = "smartmixed", __version__
    model.graph.name = "smartmixed"
    model.ir_version = oldest_ir_version(model.opset_imports[""])
    for value in (*model.graph.inputs, *(output for node in model.graph for output in node.outputs)):
        value.metadata_props.clear()  # PyTorch's notes to itself
    try:
        common.CheckerPass(full_check=True)(model)
    except (ir.passes.PassError, onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise SmxError(f"the exported graph is not valid: {one_line(error.__cause__ or error)}") from error
    common.ShapeInferencePass()(model)
    return before, passes
