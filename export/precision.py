"""Lower precision: float16 or int8 inside a finished float32 model, whose inputs and outputs stay as they are."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper
from onnxruntime.quantization import QuantType, quant_pre_process, quantize_static
from onnxruntime.transformers.float16 import DEFAULT_OP_BLOCK_LIST, convert_float_to_float16

from smx.errors import InputError, SmxError, one_line
from smx.export.capture import quiet
from smx.export.opsets import validated
from smx.files import scratch
from smx.runtime.session import DTYPES, Session

PRECISIONS = ("float32", "float16", "int8")
"""The dtypes of the weights and the arithmetic."""

MIN_EXAMPLES = 32
"""Calibration needs at least this many examples to find the range of a layer's values."""

FLOAT16_KEEPS: tuple[tuple[str, ...], ...] = ((), ("Transpose",))
"""More operators that float16 keeps in float32, and those if ONNX Runtime aborts, as 1.31 does for attention."""

_BATCH = 128  # of the calibration; only its speed depends on it
_QUANTIZED = ("Gemm", "MatMul", "Conv")
_OTHER_FLOATS = (TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BFLOAT16)


def lowered(proto: onnx.ModelProto, precision: str, calibration: NDArray[Any] | None) -> Iterator[onnx.ModelProto]:
    """Yield a float32 model in lower precision, and then forms of it for which ONNX Runtime may not abort.

    Args:
        proto: see `to_float16` and `to_int8`.
        precision: float16 or int8.
        calibration: for int8.
    """
    if precision == "int8":
        assert calibration is not None
        yield to_int8(proto, calibration)
        return
    for kept in FLOAT16_KEEPS:
        yield to_float16(proto, kept=kept)


def to_float16(proto: onnx.ModelProto, *, kept: Sequence[str] = ()) -> onnx.ModelProto:
    """Return the model with float16 weights and arithmetic; its float32 inputs and outputs stay float32.

    ONNX Runtime's own converter (`onnxruntime.transformers.float16`) puts a Cast behind each input, before each output,
    and around the few operators that it keeps in float32, such as CumSum. Weights are rounded to 11 significant bits;
    below 6.1e-05 they have steps of 6e-08, and no weight becomes 0. Values beyond 65504 in between become infinite,
    which `changed_predictions` shows. On the CPU the file is smaller, but not faster: ONNX Runtime casts the weights in
    each run.

    Args:
        proto: a model of standard operators with float32 weights; it is not modified.
        kept: more operators that are kept in float32.

    Raises:
        InputError: weights of another floating-point type, or beyond 65504, which float16 can't hold.
        SmxError: the result is not valid.
    """
    _check_float32(proto, "float16")
    coarse = [operator for operator in DEFAULT_OP_BLOCK_LIST if operator not in ("Max", "Min")]  # those are exact
    half = convert_float_to_float16(proto, keep_io_types=True, op_block_list=[*coarse, *kept])
    half.graph.ClearField("value_info")  # the converter leaves old types there
    halved = {tensor.name for tensor in half.graph.initializer if tensor.data_type == TensorProto.FLOAT16}
    for tensor in proto.graph.initializer:
        if tensor.name in halved:
            weights = numpy_helper.to_array(tensor)
            peak = float(np.abs(weights[np.isfinite(weights)]).max(initial=0))
            if peak > 65504:
                raise InputError(f"{tensor.name} holds {peak:.6g}, float16 ends at 65504; keep the model in float32")
    # The converter appends its Casts behind the nodes that read them.
    model = ir.from_proto(half)
    model.graph.sort()
    return _finished(ir.to_proto(model), proto, "float16")


def to_int8(proto: onnx.ModelProto, *calibration: NDArray[Any]) -> onnx.ModelProto:
    """Return the model with int8 weights and layer inputs; its inputs and outputs stay float32.

    ONNX Runtime (`onnxruntime.quantization`) quantizes each Gemm, MatMul and Conv that has constant weights, in the QDQ
    form: standard operators, which a runtime may fuse into integer arithmetic. The settings were chosen by measuring:

    1. Weights are int8 with a scale for each neuron, since neighbours with different activations differ in size.
    2. They use 7 of the 8 bits: on x86 without VNNI the sum of two uint8 x int8 products saturates at 16 bits.
    3. Inputs of those operators are uint8, with a scale and a zero point from the extremes of the calibration data.
    4. Results of Gemm and MatMul stay float32, and so do the mixed activations between them. A Conv has an integer
       kernel only with a quantized result.

    Args:
        proto: a model of standard operators with float32 weights and a dynamic or fixed batch; it is not modified.
        calibration: for each input one array (B, *) of examples, prepared as for inference; a thousand are enough.

    Raises:
        InputError: weights of another floating-point type, nothing to quantize, or calibration data that are too few,
            of the wrong shape or not finite.
        SmxError: the quantizer fails, or its result is not valid.
    """
    _check_float32(proto, "int8")
    feeds = _feeds(proto, calibration)
    with scratch() as folder, _temporary_in(folder), quiet():
        given, prepared, quantized = (folder / f"{stage}.onnx" for stage in ("given", "prepared", "quantized"))
        onnx.save(proto, given)
        # Makes a Gemm of MatMul and Add. When it loads a model ONNX Runtime does so too, but that Gemm, with a float32
        # bias, has no integer kernel, and takes many times as long as in float32.
        quant_pre_process(given, prepared, skip_symbolic_shape=True)
        model = onnx.load(prepared)
        nodes = _quantizable(model)
        if not nodes:
            raise InputError("the model has no Gemm, MatMul or Conv with constant weights: nothing to make int8 of")
        try:
            quantize_static(
                model,
                quantized,
                SimpleNamespace(get_next=partial(next, iter(feeds), None)),
                op_types_to_quantize=_QUANTIZED,
                nodes_to_quantize=nodes,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                per_channel=True,
                reduce_range=True,
                extra_options={"OpTypesToExcludeOutputQuantization": ["Gemm", "MatMul"]},
            )
        except Exception as error:  # whatever it meets: ValueError, AssertionError, onnxruntime's own
            raise SmxError(f"ONNX Runtime can't quantize the model: {one_line(error)}") from error
        result = onnx.load(quantized)
    known = {tensor.name for tensor in model.graph.initializer}
    scales = [numpy_helper.to_array(tensor) for tensor in result.graph.initializer if tensor.name not in known]
    if not all(np.isfinite(scale).all() for scale in scales):
        raise InputError("the calibration data lead to values in the model that are not finite")
    return _finished(result, proto, "int8")


@contextmanager
def _temporary_in(folder: Path) -> Iterator[None]:
    """Let ONNX Runtime's quantizer make its temporary folders in one that is removed whatever happens."""
    before, tempfile.tempdir = tempfile.tempdir, str(folder)
    try:
        yield
    finally:
        tempfile.tempdir = before


def changed_predictions(a: NDArray[Any], b: NDArray[Any]) -> int:
    """Count the examples whose predicted class differs between two models.

    Args:
        a, b: logits (B, C) of the same examples. An example with a NaN in either counts as changed.

    Raises:
        InputError: the shapes differ, or are not (B, C).
    """
    if a.shape != b.shape or a.ndim != 2:
        raise InputError(f"predictions are counted on two arrays of one shape (B, C), got {a.shape} and {b.shape}")
    undefined = np.isnan(a).any(1) | np.isnan(b).any(1)
    return int(np.count_nonzero(undefined | (a.argmax(1) != b.argmax(1))))


def _check_float32(proto: onnx.ModelProto, precision: str) -> None:
    types = {value.name: value.type.tensor_type.elem_type for value in proto.graph.input}
    types |= {tensor.name: tensor.data_type for tensor in proto.graph.initializer}
    for name, type in types.items():
        if type in _OTHER_FLOATS:
            found = onnx.helper.tensor_dtype_to_np_dtype(type)
            raise InputError(f"{name} is {found}; only a float32 model can become {precision}")


def _feeds(proto: onnx.ModelProto, calibration: tuple[NDArray[Any], ...]) -> list[dict[str, NDArray[Any]]]:
    """Check the calibration data and cut them into batches that the model takes."""
    session = Session(proto.SerializeToString())
    examples = min((len(x) if x.ndim else 0 for x in calibration), default=0)
    sizes = [value.shape[0] for value in session.inputs if value.shape and isinstance(value.shape[0], int)]
    batch = sizes[0] if sizes else min(_BATCH, examples)
    if examples < max(MIN_EXAMPLES, batch):
        raise InputError(f"int8 needs at least {max(MIN_EXAMPLES, batch)} examples to calibrate, got {examples}")
    feed = {}
    with np.errstate(over="ignore"):
        session.run_all(*(x[:batch] for x in calibration))  # says what is wrong with the number or the shapes of inputs
        for wanted, x in zip(session.inputs, calibration, strict=True):
            feed[wanted.name] = x = x.astype(DTYPES.get(wanted.type, x.dtype), copy=False)
            if bad := np.count_nonzero(~np.isfinite(x)):
                raise InputError(f"the calibration data for {wanted.name} hold {bad} values that are not finite")
    stop = examples - examples % batch if sizes else examples
    return [{name: x[i : i + batch] for name, x in feed.items()} for i in range(0, stop, batch)]


def _quantizable(proto: onnx.ModelProto) -> list[str]:
    """Return the names of the nodes whose weights, and bias if there is one, are constant.

    A weight that is read along two axes, as in a tied autoencoder, gets a copy for the second: its scales, one for each
    neuron, lie along one.
    """
    tensors = {tensor.name: tensor for tensor in proto.graph.initializer}
    axes: dict[str, int] = {}
    names = []
    for node in proto.graph.node:
        if node.op_type not in _QUANTIZED or any(name not in tensors for name in node.input[1:]):
            continue
        weight, *bias = (tensors[name] for name in node.input[1:])
        transposed = any(attribute.name == "transB" and attribute.i for attribute in node.attribute)
        axis = 0 if node.op_type == "Conv" or transposed else 1
        if (node.op_type != "Conv" and len(weight.dims) != 2) or any(x.dims != [weight.dims[axis]] for x in bias):
            continue
        names.append(node.name)
        if axes.setdefault(weight.name, axis) != axis:
            node.input[1] += "_transposed"
            if node.input[1] not in tensors:
                tensors[node.input[1]] = proto.graph.initializer.add()
                tensors[node.input[1]].CopyFrom(weight)
                tensors[node.input[1]].name = node.input[1]
    return names


def _finished(converted: onnx.ModelProto, original: onnx.ModelProto, precision: str) -> onnx.ModelProto:
    """Give the model back its own header, infer all shapes, and validate."""
    for field in ("opset_import", "metadata_props"):
        converted.ClearField(field)
        getattr(converted, field).extend(getattr(original, field))
    converted.producer_name, converted.producer_version = original.producer_name, original.producer_version
    return validated(converted, f"the {precision} model")
