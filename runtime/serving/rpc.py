"""The gRPC side: the protocol's calls, with the same answers as REST."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from google.protobuf.message import DecodeError

from smx.errors import SmxError
from smx.runtime.serving.logs import Ids
from smx.runtime.serving.messages import CLASSES, SERVICE
from smx.runtime.serving.protocol import (
    MAX_TENSORS,
    Cause,
    InferRequest,
    InferResponse,
    Refusal,
    RequestedOutput,
    Tensor,
    check_key,
    dtype_of,
    from_bytes,
    size_of,
    to_bytes,
)
from smx.runtime.serving.service import Service

STATUS = {
    Cause.INVALID: grpc.StatusCode.INVALID_ARGUMENT,
    Cause.UNAUTHENTICATED: grpc.StatusCode.UNAUTHENTICATED,
    Cause.NOT_FOUND: grpc.StatusCode.NOT_FOUND,
    Cause.METHOD: grpc.StatusCode.UNIMPLEMENTED,
    Cause.SLOW: grpc.StatusCode.DEADLINE_EXCEEDED,
    Cause.TOO_LARGE: grpc.StatusCode.INVALID_ARGUMENT,
    Cause.ENCODING: grpc.StatusCode.INVALID_ARGUMENT,
    Cause.BUSY: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Cause.ENDING: grpc.StatusCode.UNAVAILABLE,
    Cause.INTERNAL: grpc.StatusCode.INTERNAL,
}
"""The status code of each refusal."""

CONTENTS = {
    "BOOL": "bool_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
}
"""Where a datatype's values are; FP16 comes as bytes only."""

LINGER = 0.25
"""Seconds for calls that are on their way when the server ends, and again for clients to learn that it ends."""

MAX_STREAMS = 128
"""Calls on a connection at the same time; clients wait with further ones."""
MAX_CALLS = 1024
"""Calls at the same time; further ones are refused as RESOURCE_EXHAUSTED."""
MAX_FIELDS = 4 * MAX_TENSORS
"""Of a message itself: inputs, outputs, raw contents and parameters."""
ID_KEY = "x-request-id"
"""The metadata that names a call."""

Call = Callable[[Any, "grpc.aio.ServicerContext[Any, Any]"], Awaitable[Any]]


def read_request(message: Any) -> InferRequest:
    """Read a `ModelInferRequest`.

    Raises:
        Refusal: it is not what the protocol says.
    """
    raw = message.raw_input_contents
    if raw and len(raw) != len(message.inputs):
        raise Refusal(Cause.INVALID, f"there are {len(raw)} raw_input_contents for {len(message.inputs)} inputs")
    if max(len(message.inputs), len(message.outputs)) > MAX_TENSORS:
        raise Refusal(Cause.INVALID, f"a request may have {MAX_TENSORS} inputs and {MAX_TENSORS} outputs")
    if not message.inputs:
        raise Refusal(Cause.INVALID, "the request needs inputs")
    inputs = []
    for i, entry in enumerate(message.inputs):
        shape = list(entry.shape)
        if raw:
            if entry.HasField("contents"):
                raise Refusal(Cause.INVALID, f"the input {entry.name!r} has both contents and raw_input_contents")
            inputs.append(from_bytes(entry.name, entry.datatype, shape, raw[i]))
        else:
            inputs.append(_from_contents(entry, shape))
    return InferRequest(
        inputs=inputs,
        outputs=[RequestedOutput(name=each.name, parameters=_parameters(each)) for each in message.outputs],
        id=message.id,
        parameters=_parameters(message),
    )


def write_response(response: InferResponse) -> Any:
    """Write a `ModelInferResponse`, its tensors as bytes."""
    tensor = CLASSES["ModelInferResponse.InferOutputTensor"]
    return CLASSES["ModelInferResponse"](
        model_name=response.model_name,
        model_version=response.model_version,
        id=response.id,
        outputs=[tensor(name=y.name, datatype=y.datatype, shape=y.array.shape) for y in response.outputs],
        raw_output_contents=[to_bytes(y.array) for y in response.outputs],
    )


def _from_contents(entry: Any, shape: Sequence[int]) -> Tensor:
    dtype, count = dtype_of(entry.name, entry.datatype), size_of(entry.name, shape)
    field = CONTENTS.get(entry.datatype)
    if field is None:
        raise Refusal(Cause.INVALID, f"the input {entry.name!r} of {entry.datatype} needs raw_input_contents")
    values = getattr(entry.contents, field)
    if {given.name for given, _ in entry.contents.ListFields()} - {field}:
        raise Refusal(Cause.INVALID, f"the input {entry.name!r} of {entry.datatype} takes {field} alone")
    if len(values) != count:
        raise Refusal(
            Cause.INVALID, f"the input {entry.name!r} of shape {shape} needs {count} {field}, got {len(values)}"
        )
    try:
        return Tensor(entry.name, np.array(values, dtype).reshape(shape))
    except OverflowError as error:
        raise Refusal(Cause.INVALID, f"the input {entry.name!r} has values that {entry.datatype} can't hold") from error


def _parameters(message: Any) -> Mapping[str, Any]:
    kinds = {key: value.WhichOneof("parameter_choice") for key, value in message.parameters.items()}
    return {key: getattr(message.parameters[key], kind) for key, kind in kinds.items() if kind}


class Servicer:
    """The calls; each takes a message and returns one."""

    def __init__(self, service: Service) -> None:
        self.service = service

    async def server_live(self, request: Any, context: Any) -> Any:
        """Answer that the server runs."""
        return CLASSES["ServerLiveResponse"](live=True)

    async def server_ready(self, request: Any, context: Any) -> Any:
        """Answer whether all models are ready."""
        return CLASSES["ServerReadyResponse"](ready=self.service.ready)

    async def model_ready(self, request: Any, context: Any) -> Any:
        """Answer whether a model is ready; one that is not there is not."""
        versions = self.service.repository.versions(request.name)
        ready = request.version in versions if request.version else bool(versions)
        return CLASSES["ModelReadyResponse"](ready=ready)

    async def server_metadata(self, request: Any, context: Any) -> Any:
        """Answer what the server is."""
        return CLASSES["ServerMetadataResponse"](**self.service.server_metadata())

    async def model_metadata(self, request: Any, context: Any) -> Any:
        """Answer what a model takes and returns."""
        return CLASSES["ModelMetadataResponse"](**self.service.model_metadata(request.name, request.version))

    async def repository_index(self, request: Any, context: Any) -> Any:
        """Answer which models there are."""
        return CLASSES["RepositoryIndexResponse"](models=self.service.repository.index(request.ready))

    async def model_infer(self, request: Any, context: Any) -> Any:
        """Run a model."""
        with self.service.counted(request.model_name, "grpc"):
            asked = read_request(request)
            left = context.time_remaining()
            answer = await self.service.infer(request.model_name, request.model_version, asked, left)
            return write_response(answer)


async def _receive(requests: AsyncIterator[bytes], seconds: float) -> bytes:
    try:
        async with asyncio.timeout(seconds):
            return await anext(requests)
    except TimeoutError as error:
        raise Refusal(Cause.SLOW, f"the request did not come in {seconds:g} seconds") from error
    except StopAsyncIteration as error:
        raise Refusal(Cause.INVALID, "the call has no request") from error


def check_fields(request: bytes) -> None:
    """Refuse a message of very many fields, which protobuf would make thousands of times as large as it came.

    What is no message is left to protobuf. Source: https://protobuf.dev/programming-guides/encoding/
    """
    place, length = 0, len(request)

    def number() -> int:
        nonlocal place
        value = shift = 0
        while place < length and shift < 64:
            byte = request[place]
            place, value, shift = place + 1, value | (byte & 127) << shift, shift + 7
            if byte < 128:
                break
        return value

    for _ in range(MAX_FIELDS + 1):
        if place >= length:
            return
        kind = number() & 7
        if kind == 0:
            number()
            continue
        size = number() if kind == 2 else {1: 8, 3: 0, 4: 0, 5: 4}.get(kind, length)  # a group's fields count, too
        place += size
    raise Refusal(Cause.INVALID, f"a message may have {MAX_FIELDS} fields")


def guarded(
    call: Call,
    message: Any,
    api_key: bytes | None,
    service: Service,
    ids: Ids,
    log: Callable[..., None],
    log_all: bool = False,
) -> Call:
    """Return the call for a stream of messages' bytes, with its key checked, and refusals as statuses.

    On the wire, a call of one message looks the same as such a stream; but gRPC would wait for that message for ever.

    Args:
        call: takes the message.
        message: its class.
        api_key: what clients must send; None lets everybody in.
        service: says whether calls are taken, and for how long a message may be coming.
        ids: names the calls.
        log, log_all: see `make_server`.
    """
    name = message.DESCRIPTOR.name.removesuffix("Request")

    async def answer(requests: AsyncIterator[bytes], context: grpc.aio.ServicerContext[Any, Any]) -> Any:
        start, given, found = time.perf_counter(), dict(context.invocation_metadata() or ()), None
        request_id = ids.of(str(given.get(ID_KEY, "")))
        context.set_trailing_metadata(((ID_KEY, request_id),))
        counted, status = False, "CANCELLED"  # unless something else comes of it
        try:
            if service.closed:
                raise Refusal(Cause.ENDING, "this server ends")
            if api_key is not None:
                check_key(str(given.get("authorization", "")), api_key, "authorization")
            request = await _receive(requests, service.limits.read_timeout)
            with service.bodies.whole(request):
                check_fields(request)
                asked, counted = message.FromString(request), True
                made, status = await call(asked, context), "OK"
                return made
        except Refusal as refusal:
            found = refusal
        except DecodeError:
            found = Refusal(Cause.INVALID, f"the request is no {message.DESCRIPTOR.name}")
        except Exception as error:  # the client learns nothing of what is inside
            log("failed", error=f"{type(error).__name__}: {error}")
            found = Refusal(Cause.INTERNAL, "the server failed to answer this request; its log says why")
        finally:
            if found or log_all:
                took = round((time.perf_counter() - start) * 1e3, 2)
                status = STATUS[found.cause].name if found else status
                log("call", id=request_id, method=name, status=status, ms=took, error=str(found) if found else None)
        if not counted:
            service.metrics.refused("grpc", found.cause.value)
        return await context.abort(STATUS[found.cause], str(found))

    return answer


def make_server(
    service: Service,
    address: str,
    *,
    api_key: str | None,
    tls: tuple[Path, Path] | None,
    log: Callable[..., None],
    log_all: bool = False,
) -> tuple[grpc.aio.Server, int]:
    """Return a server that is bound to `host:port` and not started, and its port; there must be a running loop.

    Args:
        service: what answers.
        address: where it listens.
        api_key: what clients must send; None lets everybody in.
        tls: files of a certificate and its key.
        log: is called with an event's name and its fields, for calls that are refused.
        log_all: log answered calls, too.

    Raises:
        SmxError: the address can't be had.
    """
    limits = service.limits
    servicer = Servicer(service)
    key, ids = api_key.encode() if api_key else None, Ids()
    calls = {
        "ServerLive": servicer.server_live,
        "ServerReady": servicer.server_ready,
        "ModelReady": servicer.model_ready,
        "ServerMetadata": servicer.server_metadata,
        "ModelMetadata": servicer.model_metadata,
        "RepositoryIndex": servicer.repository_index,
        "ModelInfer": servicer.model_infer,
    }
    probes = ("ServerLive", "ServerReady")
    handlers = {
        name: grpc.stream_unary_rpc_method_handler(
            guarded(call, CLASSES[f"{name}Request"], None if name in probes else key, service, ids, log, log_all),
            response_serializer=CLASSES[f"{name}Response"].SerializeToString,
        )
        for name, call in calls.items()
    }
    server = grpc.aio.server(
        maximum_concurrent_rpcs=MAX_CALLS,
        options=[
            ("grpc.max_receive_message_length", limits.max_body),
            ("grpc.max_send_message_length", -1),
            ("grpc.max_concurrent_streams", MAX_STREAMS),
            ("grpc.max_connection_idle_ms", int(limits.idle_timeout * 1000)),
            ("grpc.server_handshake_timeout_ms", max(1, int(limits.read_timeout * 1000))),
            ("grpc.max_allowed_incoming_connections", limits.max_connections),
            ("grpc.so_reuseport", 0),
        ],
    )
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    try:
        if tls is None:
            port = server.add_insecure_port(address)
        else:
            cert, private = (path.read_bytes() for path in tls)
            port = server.add_secure_port(address, grpc.ssl_server_credentials([(private, cert)]))
    except RuntimeError as error:
        raise SmxError(f"can't listen on {address}: it is in use, or none of this machine; choose another") from error
    return server, port


async def serve(server: grpc.aio.Server, service: Service, grace: float) -> None:
    """Answer, with a server that is started, until the task is cancelled; then answer what is asked already.

    A stopping server of gRPC cancels calls that are on their way, and clients can't tell whether those were run. So
    calls are answered for a moment, then refused for a moment as UNAVAILABLE: clients turn to other servers.
    """
    try:
        await asyncio.Event().wait()
    finally:
        await asyncio.sleep(LINGER)
        service.closed = True
        await asyncio.sleep(LINGER)
        await server.stop(grace)
