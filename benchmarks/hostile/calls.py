"""Hostile gRPC calls."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from random import Random
from typing import Any

import grpc

from hostile.bodies import SHAPE, SIZE
from hostile.talk import LEAKS, Target
from smx.runtime.serving.messages import CLASSES, SERVICE

REFUSED = {"INVALID_ARGUMENT", "NOT_FOUND", "RESOURCE_EXHAUSTED", "UNIMPLEMENTED", "DEADLINE_EXCEEDED", "CANCELLED"}
MAX_DETAILS = 16_384
"""Letters; gRPC itself tells a client the size of each of its headers where these are too large."""
GONE = {"UNAVAILABLE"}
"""The server ended the connection, as it may."""


def message(**changes: Any) -> bytes:
    """Return a `ModelInferRequest` that is right but for changes."""
    tensor = CLASSES["ModelInferRequest.InferInputTensor"](name="x", datatype="FP32", shape=SHAPE)
    content: dict[str, Any] = {"model_name": "image", "inputs": [tensor], "raw_input_contents": [bytes(4 * SIZE)]}
    made: bytes = CLASSES["ModelInferRequest"](**content | changes).SerializeToString()
    return made


def damaged(random: Random) -> bytes:
    """Return bytes that are no message, or one with wrong bytes."""
    whole = bytearray(message())
    for _ in range(random.choice([1, 5])):
        whole[random.randrange(30)] = random.randrange(256)
    return random.choice(
        [random.randbytes(random.randrange(1, 200)), bytes(whole), bytes(whole[: random.randrange(100)])]
    )


def wrong(random: Random) -> bytes:
    """Return a message that the protocol or the model refuses."""
    tensor, contents = CLASSES["ModelInferRequest.InferInputTensor"], CLASSES["InferTensorContents"]
    output, parameter = CLASSES["ModelInferRequest.InferRequestedOutputTensor"], CLASSES["InferParameter"]

    def inputs(**changes: Any) -> list[Any]:
        return [tensor(**{"name": "x", "datatype": "FP32", "shape": SHAPE} | changes)]

    raw = [b""], [bytes(4 * SIZE)] * 2, [bytes(4 * SIZE)] * 1000, [bytes(4 * SIZE - 1)], [bytes(4 * SIZE + 1)]
    shapes: tuple[list[int], ...] = [-1, 1, 28, 28], [2**32, 2**32], [2**63 - 1], [1] * 10_000, [], [3] * 60, [-(2**63)]
    names = "FP64", "BYTES", "FP16", "", "x", "F" * 10_000, "\x1b[2J"
    changes: list[dict[str, Any]] = [
        *({"raw_input_contents": value} for value in raw),
        *({"inputs": inputs(shape=shape)} for shape in shapes),
        *({"inputs": inputs(datatype=name)} for name in names),
        *({"inputs": inputs(name=name)} for name in ("y", "", "n" * 100_000, "\u202e\r\n")),
        {"inputs": []},
        {"inputs": inputs() * 2},
        {"inputs": inputs() * 5000, "raw_input_contents": []},
        {"inputs": inputs(contents=contents(fp32_contents=[0.5] * 3)), "raw_input_contents": []},
        {"inputs": inputs(contents=contents(fp32_contents=[0.5])), "raw_input_contents": [bytes(4 * SIZE)]},
        {"inputs": inputs(contents=contents(int_contents=[1] * SIZE)), "raw_input_contents": []},
        {"outputs": [output(name="z")]},
        {"outputs": [output(name="y")] * 2},
        {"outputs": [output(name="y", parameters={"classification": parameter(int64_param=-1)})]},
        {"outputs": [output(name="y", parameters={"classification": parameter(string_param="x")})]},
        {"parameters": {"timeout": parameter(int64_param=-5)}},
        {"parameters": {"top_k": parameter(double_param=float("nan"))}},
        *({"model_name": name} for name in ("", "nothing", "../image", "n" * 100_000, "\x1b[2J")),
        *({"model_version": version} for version in ("2", "-1", "9" * 5000, "x")),
    ]
    return message(**random.choice(changes))


async def call(
    channel: Any, method: str, body: bytes, *, timeout: float, metadata: Any = (), cancel: float | None = None
) -> tuple[str, list[str]]:
    """Make a call; return its status and what is wrong with that."""
    stub = channel.unary_unary(method, request_serializer=lambda x: x, response_deserializer=lambda x: x)
    running = stub(body, timeout=timeout, metadata=metadata)
    try:
        if cancel is not None:
            await asyncio.sleep(cancel)
            running.cancel()
        await running
    except asyncio.CancelledError:
        return "CANCELLED", []
    except grpc.aio.AioRpcError as error:
        name, details = error.code().name, error.details() or ""
        faults = [f"{name}: {details[:200]}"] if name not in REFUSED | GONE else []
        if len(details) > MAX_DETAILS or (name in REFUSED and LEAKS.search(" ".join(details.split()))):
            faults.append(f"{name} tells too much: {details[:200]!r}")
        return name, faults
    return "OK", []


async def run(kind: str, random: Random, target: Target) -> tuple[list[str], list[str]]:
    """Make one hostile call of a kind; return its status and what was wrong."""
    if kind == "grpc_garbage":
        return await _garbage(random, target)
    infer = f"/{SERVICE}/ModelInfer"
    options = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_send_message_length", -1)]
    async with grpc.aio.insecure_channel(f"{target.host}:{target.grpc_port}", options) as channel:
        patience = target.patience
        if kind == "grpc_damaged":
            place = random.choice([infer, f"/{SERVICE}/ModelMetadata", f"/{SERVICE}/ServerLive"])
            status, faults = await call(channel, place, damaged(random), timeout=patience)
        elif kind == "grpc_wrong":
            status, faults = await call(channel, infer, wrong(random), timeout=patience)
            faults += ["it was answered"] if status == "OK" else []
        elif kind == "grpc_oversized":
            body = message(raw_input_contents=[bytes(target.max_body + random.choice([1, 2**20]))])
            status, faults = await call(channel, infer, body, timeout=patience)
            faults += ["it was answered"] if status == "OK" else []
        elif kind == "grpc_cancelled":
            delay = random.choice([0.0, 0.001, 0.005])
            status, faults = await call(channel, infer, message(), timeout=patience, cancel=delay)
        elif kind == "grpc_silent":
            status, faults = await _silent(channel, infer, random.choice([0.0, 2 * patience]), patience)
        elif kind == "grpc_deadlines":
            seconds = random.choice([1e-6, 0.0005, 0.001, 0.002])
            status, faults = await call(channel, infer, message(), timeout=seconds)
        else:
            places = [f"/{SERVICE}/ModelLoad", f"/{SERVICE}/../x", "/x", "/a/b", f"/{SERVICE}/" + "m" * 4000]
            flood = [(f"x-{i}", "y" * 100) for i in range(random.choice([10, 1000]))]
            flooded = random.random() < 0.5
            place = infer if flooded else random.choice(places)
            status, faults = await call(channel, place, message(), timeout=patience, metadata=flood if flooded else ())
    return [status], faults


async def _silent(channel: Any, method: str, seconds: float, patience: float) -> tuple[str, list[str]]:
    """Begin a call, and send no message for a while."""

    async def nothing() -> AsyncIterator[bytes]:
        await asyncio.sleep(seconds)
        none: tuple[bytes, ...] = ()
        for each in none:
            yield each

    running = channel.stream_unary(method, request_serializer=lambda x: x)(nothing(), timeout=patience)
    try:
        await running
    except grpc.aio.AioRpcError as error:
        mine = error.code().name == "DEADLINE_EXCEEDED" and "did not come" not in (error.details() or "")
        return error.code().name, ["the server waits for ever"] if mine else []
    return "OK", ["it was answered"]


async def _garbage(random: Random, target: Target) -> tuple[list[str], list[str]]:
    preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
    frames = random.choice([b"", b"\0\0\0\4\0\0\0\0\0", b"\xff\xff\xff\0\0\0\0\0\1", random.randbytes(400)])
    sent = random.choice(
        [random.randbytes(500), b"GET / HTTP/1.1\r\n\r\n", preface + frames, b"", b"\x16\3\1" + bytes(99)]
    )
    try:
        reader, writer = await asyncio.open_connection(target.host, target.grpc_port)
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(0.5):
                writer.write(sent)
                await writer.drain()
                while await reader.read(2**16):
                    pass
        writer.close()
    except OSError:
        pass
    return ["closed"], []


KINDS: tuple[str, ...] = (
    "grpc_garbage",
    "grpc_damaged",
    "grpc_wrong",
    "grpc_oversized",
    "grpc_cancelled",
    "grpc_deadlines",
    "grpc_silent",
    "grpc_methods",
)
Run = Callable[[str, Random, Target], Any]
