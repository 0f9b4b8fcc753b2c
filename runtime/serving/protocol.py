"""The messages of the Open Inference Protocol, whatever carries them: JSON, binary tensors or gRPC.

Source: https://github.com/kserve/open-inference-protocol, `specification/protocol/`. The extensions for binary
tensors and for classification are Triton's.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

BYTES = "BYTES"
NUMERIC: dict[str, np.dtype[Any]] = {
    "BOOL": np.dtype(np.bool_),
    "UINT8": np.dtype(np.uint8),
    "UINT16": np.dtype(np.uint16),
    "UINT32": np.dtype(np.uint32),
    "UINT64": np.dtype(np.uint64),
    "INT8": np.dtype(np.int8),
    "INT16": np.dtype(np.int16),
    "INT32": np.dtype(np.int32),
    "INT64": np.dtype(np.int64),
    "FP16": np.dtype(np.float16),
    "FP32": np.dtype(np.float32),
    "FP64": np.dtype(np.float64),
}
"""The protocol's datatypes of numbers; models here take nothing else."""
DTYPES = {**NUMERIC, BYTES: np.dtype(np.object_)}
"""All of them; BYTES are texts, one `str` an element, as outputs have them."""

DATATYPES = {dtype: name for name, dtype in DTYPES.items()}
MAX_TENSORS = 1000
"""Inputs, and outputs, of a request."""
MAX_RANK, MAX_SIZE = 64, 2**60
"""Of an array in NumPy: lengths in a shape, and elements of up to eight bytes."""


class Cause(Enum):
    """Why a request is refused; `rest.py` and `grpc.py` give each its status."""

    INVALID = "invalid"
    UNAUTHENTICATED = "unauthenticated"
    NOT_FOUND = "not_found"
    METHOD = "method"
    SLOW = "slow"
    TOO_LARGE = "too_large"
    ENCODING = "encoding"
    BUSY = "busy"
    ENDING = "ending"
    INTERNAL = "internal"


MAX_MESSAGE = 400
"""Letters of a refusal, which may quote what the client sent; gRPC clients take 8 KiB, percent-encoded."""


class Refusal(Exception):  # noqa: N818
    """A request that is not answered; the message is one short line for the client."""

    def __init__(self, cause: Cause, message: str) -> None:
        line = " ".join(message.split())
        super().__init__(line if len(line) <= MAX_MESSAGE else f"{line[:MAX_MESSAGE]}...")
        self.cause = cause


class Gone(Exception):  # noqa: N818
    """The client has closed its connection before its request was complete; nobody waits for an answer."""


def check_key(authorization: str, api_key: bytes, how: str) -> None:
    """Refuse a client whose `Authorization` is not `Bearer KEY`; `how` tells it what to send."""
    scheme, _, key = authorization.partition(" ")
    if scheme.lower() != "bearer" or not hmac.compare_digest(key.strip().encode(), api_key):
        raise Refusal(Cause.UNAUTHENTICATED, f"this server needs a key: send {how}: Bearer KEY")


class Tensor(NamedTuple):
    """A named array of one of the `DATATYPES`."""

    name: str
    array: NDArray[Any]

    @property
    def datatype(self) -> str:
        """The protocol's name of the dtype."""
        return DATATYPES[self.array.dtype]


@dataclass(frozen=True, kw_only=True)
class RequestedOutput:
    """An output that a request asks for.

    Attributes:
        parameters: `classification` of k asks for the k best classes instead of the values; `binary_data` for bytes.
    """

    name: str
    parameters: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class InferRequest:
    """What a client asks for.

    Attributes:
        inputs: the tensors; each has the whole batch.
        outputs: those that are wanted; none means all of the model's.
        id: comes back in the answer.
        parameters: `probabilities` and `top_k` ask for further outputs, see `smx.runtime.serving.classes`;
            `binary_data_output` for bytes in all outputs; `timeout` is in microseconds, as Triton has it.
    """

    inputs: Sequence[Tensor]
    outputs: Sequence[RequestedOutput] = ()
    id: str = ""
    parameters: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class InferResponse:
    """What the model answers."""

    model_name: str
    model_version: str
    outputs: Sequence[Tensor]
    id: str = ""


def from_bytes(name: str, datatype: Any, shape: Any, raw: bytes | memoryview) -> Tensor:
    """Read a tensor from its raw bytes: row-major, little-endian.

    Raises:
        Refusal: the datatype is unknown, or there are more or fewer bytes than the shape needs.
    """
    dtype, count = dtype_of(name, datatype), size_of(name, shape)
    if len(raw) != count * dtype.itemsize:
        raise Refusal(
            Cause.INVALID,
            f"the input {name!r} of {datatype} {list(shape)} needs {count * dtype.itemsize} bytes, got {len(raw)}",
        )
    if dtype == np.bool_:  # any byte but 0 is true; in an array of truths it would be neither
        return Tensor(name, (np.frombuffer(raw, np.uint8) != 0).reshape(shape))
    array = np.frombuffer(raw, dtype.newbyteorder("<")).astype(dtype, copy=False)
    return Tensor(name, (array if array.flags.aligned else array.copy()).reshape(shape))


def to_bytes(array: NDArray[Any]) -> bytes:
    """Write what `from_bytes` reads; BYTES each after its length in four bytes."""
    if array.dtype != np.object_:
        return np.ascontiguousarray(array.astype(array.dtype.newbyteorder("<"), copy=False)).tobytes()
    encoded = (str(text).encode() for text in array.flat)
    return b"".join(len(text).to_bytes(4, "little") + text for text in encoded)


def dtype_of(name: str, datatype: Any) -> np.dtype[Any]:
    """Return the dtype of an input's datatype."""
    if not isinstance(datatype, str) or datatype not in NUMERIC:
        raise Refusal(Cause.INVALID, f"the input {name!r} needs a datatype of {', '.join(NUMERIC)}, got {datatype!r}")
    return NUMERIC[datatype]


def size_of(name: str, shape: Any) -> int:
    """Return the number of elements of a shape, and refuse what is none."""
    if not isinstance(shape, Sequence) or isinstance(shape, str):
        raise Refusal(Cause.INVALID, f"the input {name!r} needs a shape, a list of whole numbers, got {shape!r}")
    if len(shape) > MAX_RANK:
        raise Refusal(Cause.INVALID, f"the input {name!r} has a shape of {len(shape)} lengths; {MAX_RANK} are possible")
    size = 1
    for length in shape:
        if type(length) is not int or not 0 <= length < MAX_SIZE:
            raise Refusal(
                Cause.INVALID, f"the input {name!r} has the length {length!r} in its shape, expected 0 to 2**60"
            )
        size *= max(length, 1)  # NumPy has this limit even where another length is 0
    if size >= MAX_SIZE:
        raise Refusal(Cause.INVALID, f"the input {name!r} has more than 2**60 elements by its shape {list(shape)}")
    return 0 if 0 in shape else size
