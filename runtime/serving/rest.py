"""Requests and answers as HTTP bodies: JSON, and the extension for binary tensors.

With the extension, a body is JSON followed by the tensors' bytes in the order of the JSON; the header
`Inference-Header-Content-Length` says how long the JSON is, and `parameters.binary_data_size` how long each tensor is.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from itertools import chain
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from smx.runtime.serving.protocol import (
    MAX_TENSORS,
    Cause,
    InferRequest,
    InferResponse,
    Refusal,
    RequestedOutput,
    Tensor,
    dtype_of,
    from_bytes,
    size_of,
    to_bytes,
)

STATUS = {
    Cause.INVALID: 400,
    Cause.UNAUTHENTICATED: 401,
    Cause.NOT_FOUND: 404,
    Cause.METHOD: 405,
    Cause.SLOW: 408,
    Cause.TOO_LARGE: 413,
    Cause.ENCODING: 415,
    Cause.BUSY: 429,
    Cause.ENDING: 503,
    Cause.INTERNAL: 500,
}
"""The status code of each refusal."""

LENGTH_HEADER = "inference-header-content-length"
MAX_DIGITS = 18
"""Of a number in a header or a query: such a one fits into 64 bits."""
LONG = 2**16
"""Bytes of JSON that may become very many lists."""
STEPS = np.zeros(256, np.int8)
"""What a letter of JSON does to the depth."""
STEPS[list(b"[{")], STEPS[list(b"]}")] = 1, -1


def read_request(body: bytes, json_length: int | None, max_depth: int) -> InferRequest:
    """Read the body of a request.

    Args:
        body: all of it.
        json_length: the value of `Inference-Header-Content-Length`; None where there is none, and all is JSON.
        max_depth: lists and objects in each other.

    Raises:
        Refusal: the body is not what the protocol says.
    """
    if json_length is None:
        text, rest = body, memoryview(b"")
    elif 0 <= json_length <= len(body):
        text, rest = body[:json_length], memoryview(body)[json_length:]
    else:
        raise invalid(f"{LENGTH_HEADER} is {json_length}, and the body has {len(body)} bytes")
    content = parse(text, max_depth)
    inputs = []
    for entry in entries(content, "inputs"):
        name, parameters = named(entry, "inputs")
        size = parameters.get("binary_data_size")
        if size is None:
            inputs.append(_from_json(name, entry))
            continue
        if type(size) is not int or not 0 <= size <= len(rest):
            raise invalid(f"the input {name!r} has the binary_data_size {size!r}, and {len(rest)} bytes are left")
        if "data" in entry:
            raise invalid(f"the input {name!r} has both data and binary_data_size")
        inputs.append(from_bytes(name, entry.get("datatype"), entry.get("shape"), rest[:size]))
        rest = rest[size:]
    if len(rest):
        raise invalid(f"{len(rest)} bytes are left after the last input")
    if not inputs:
        raise invalid("the request needs inputs, a list of tensors")
    request_id = content.get("id", "")
    if not isinstance(request_id, str):
        raise invalid(f"the request's id must be a text, got {type(request_id).__name__}")
    outputs = [named(entry, "outputs") for entry in entries(content, "outputs")]
    return InferRequest(
        inputs=inputs,
        outputs=[RequestedOutput(name=name, parameters=parameters) for name, parameters in outputs],
        id=request_id,
        parameters=parameters_of(content),
    )


def write_response(response: InferResponse, request: InferRequest) -> tuple[bytes, int | None]:
    """Write an answer; return the body, and the length of its JSON if bytes follow.

    Raises:
        Refusal: an output that is wanted as JSON is not finite, which JSON can't say.
    """
    by_default = _flag(request.parameters, "binary_data_output", False)
    binary = {output.name: _flag(output.parameters, "binary_data", by_default) for output in request.outputs}
    described, rest = [], []
    for output in response.outputs:
        entry: dict[str, Any] = {"name": output.name, "datatype": output.datatype, "shape": output.array.shape}
        if binary.get(output.name, by_default):
            rest.append(to_bytes(output.array))
            entry["parameters"] = {"binary_data_size": len(rest[-1])}
        else:
            entry["data"] = _to_json(output)
        described.append(entry)
    content = {"model_name": response.model_name, "model_version": response.model_version, "outputs": described}
    if response.id:
        content["id"] = response.id
    text = to_json(content)
    return (b"".join((text, *rest)), len(text)) if rest else (text, None)


def parse(text: bytes, max_depth: int) -> dict[str, Any]:
    """Read a JSON object that is not too deep.

    Raises:
        Refusal: it is deeper, or no JSON object.
    """
    if text.count(b"[") + text.count(b"{") > max_depth and depth(text) > max_depth:
        raise invalid(f"the JSON is deeper than {max_depth} lists and objects")
    try:
        with _no_collection() if len(text) > LONG else nullcontext():
            content = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise invalid(f"the body is no JSON: {error}") from error
    if not isinstance(content, dict):
        raise invalid(f"the body must be a JSON object, got {type(content).__name__}")
    return content


@contextmanager
def _no_collection() -> Iterator[None]:
    """Keep Python from searching millions of new lists for cycles, again and again; nothing else runs meanwhile."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def depth(text: bytes) -> int:
    """Return how deep lists and objects are in each other; in time and memory that grow as the text does."""
    letters = np.frombuffer(text.replace(rb"\\", b"").replace(rb"\"", b""), np.uint8)
    inside = np.cumsum(letters == ord('"'), dtype=np.uint8) & 1  # of a text; only odd and even matter
    return int(np.cumsum(np.where(inside, 0, STEPS[letters]), dtype=np.int32).max(initial=0))


def to_json(content: Any) -> bytes:
    """Write JSON; NumPy arrays become lists."""
    return orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY)


def entries(content: dict[str, Any], key: str) -> list[dict[str, Any]]:
    """Return a list of objects; none where the key is missing."""
    found = content.get(key, [])
    if not isinstance(found, list) or {*map(type, found)} - {dict}:
        raise invalid(f"{key} must be a list of objects")
    if len(found) > MAX_TENSORS:
        raise invalid(f"a request may have {MAX_TENSORS} {key}, got {len(found)}")
    return found


def named(entry: dict[str, Any], key: str) -> tuple[str, dict[str, Any]]:
    """Return name and parameters of an input or output."""
    name = entry.get("name")
    if not isinstance(name, str):
        raise invalid(f"each of the {key} needs a name, a text, got {name!r:.50}")
    return name, parameters_of(entry)


def parameters_of(content: dict[str, Any]) -> dict[str, Any]:
    """Return the parameters; none where there are none."""
    found = content.get("parameters", {})
    if not isinstance(found, dict):
        raise invalid(f"parameters must be an object, got {type(found).__name__}")
    return found


def _flag(parameters: Mapping[str, Any], key: str, default: bool) -> bool:
    value = parameters.get(key, default)
    if not isinstance(value, bool):
        raise invalid(f"the parameter {key} must be true or false, got {value!r}")
    return value


def is_number(text: str) -> bool:
    """Whether a header or a query holds a whole number, in plain digits."""
    return text.isascii() and text.isdigit() and len(text) <= MAX_DIGITS


def invalid(message: str) -> Refusal:
    """Return the refusal of a malformed request."""
    return Refusal(Cause.INVALID, message)


NUMBERS: dict[str, set[type]] = {"b": {bool}, "i": {int}, "u": {int}, "f": {int, float}}
"""The types that JSON's values may have, by the kind of the dtype."""


def _from_json(name: str, entry: dict[str, Any]) -> Tensor:
    datatype = entry.get("datatype")
    dtype, shape = dtype_of(name, datatype), entry.get("shape")
    count = size_of(name, shape)
    values = entry.get("data")
    if not isinstance(values, list):
        raise invalid(f"the input {name!r} needs data, a list, or binary_data_size")
    nested = [len(values)]
    while values and isinstance(values[0], list):
        if {*map(type, values)} != {list} or len({*map(len, values)}) != 1:
            raise invalid(f"the input {name!r} has nested data of unequal lengths")
        nested.append(len(values[0]))
        values = list(chain.from_iterable(values))
    # An empty list is the end of the nesting, whatever lengths follow.
    if len(nested) > 1 and nested != list(shape or ())[: len(nested) if 0 in nested else None]:
        raise invalid(f"the input {name!r} of shape {shape} has nested data of the shape {nested}")
    wrong = {*map(type, values)} - NUMBERS[dtype.kind]
    if wrong:
        raise invalid(f"the input {name!r} of {datatype} has data of the type {sorted(t.__name__ for t in wrong)[0]}")
    if len(values) != count:
        raise invalid(f"the input {name!r} of shape {shape} needs {count} values, got {len(values)}")
    try:
        with np.errstate(over="ignore"):
            array: NDArray[Any] = np.array(values, dtype).reshape(shape)
    except OverflowError as error:
        raise invalid(f"the input {name!r} has values that {datatype} can't hold") from error
    if dtype.kind == "f" and not np.isfinite(array).all():
        raise invalid(f"the input {name!r} has values that {datatype} can't hold")
    return Tensor(name, array)


def _to_json(output: Tensor) -> Any:
    array = output.array
    if array.dtype == np.object_:
        return array.ravel().tolist()
    if array.dtype == np.float16:
        array = array.astype(np.float32)
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise invalid(f"the output {output.name!r} is not finite, which JSON can't say; ask for binary data")
    return np.ascontiguousarray(array).reshape(-1)
