"""The real command in need, and its end: what was asked is answered, and exit codes say how it ended."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from smx.runtime.serving.messages import CLASSES, SERVICE
from tests.conftest import refused, smx
from tests.runtime.fakes import HEAD
from tests.runtime.serving.process import Running, serving

BODY = json.dumps({"inputs": [{"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [1, 2]}]}).encode()
HEADERS = b"POST /v2/models/small/infer HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n"
REQUEST = HEADERS % len(BODY) + BODY
READY = "GET /v2/health/ready"
WAIT = 400.0
"""Milliseconds that each request waits for others, so that there are always some whose answer is due."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import onnx.parser

    path = tmp_path_factory.mktemp("drained") / "small.onnx"
    onnx.save(onnx.parser.parse_model(HEAD + "(float[b,2] x) => (float[b,2] y) { y = Neg(x) }"), path)
    return path


async def answer(reader: asyncio.StreamReader) -> tuple[str, Any]:
    """Return the head of an answer and its JSON."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    length = next(line for line in head.splitlines() if line.lower().startswith("content-length:"))
    return head, json.loads(await reader.readexactly(int(length.partition(":")[2])))


async def connect(server: Running) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    host, port = server.http.split(":")
    return await asyncio.open_connection(host, int(port))


def values(content: Any) -> list[float]:
    found: list[float] = content["outputs"][0]["data"]
    return found


async def keep_asking(server: Running, ends: list[str]) -> int:
    """Ask on one connection until the server ends it, with an answer; return the number of answers."""
    reader, writer = await connect(server)
    count = 0
    while True:
        writer.write(REQUEST)
        head, content = await answer(reader)
        assert values(content) == [-1, -2]
        count += 1
        if "connection: close" in head:
            break
    assert await reader.read() == b""
    writer.close()
    ends.append(head)
    return count


async def send_slowly(server: Running, signalled: asyncio.Event) -> Any:
    """Send a large body, of which a part comes after the signal."""
    rows = 4000
    body = json.dumps({"inputs": [{"name": "x", "shape": [rows, 2], "datatype": "FP32", "data": [1.5] * 2 * rows}]})
    reader, writer = await connect(server)
    writer.write(HEADERS % len(body) + body[:100].encode())
    await asyncio.sleep(0.6)
    signalled.set()
    server.process.send_signal(signal.SIGTERM)
    await asyncio.sleep(0.3)
    writer.write(body[100:].encode())
    _, content = await answer(reader)
    writer.close()
    return content


async def ask_grpc(server: Running, signalled: asyncio.Event) -> list[Any]:
    import grpc

    message = CLASSES["ModelInferRequest"](
        model_name="small", raw_input_contents=[np.array([1, 2], np.float32).tobytes()]
    )
    message.inputs.add(name="x", datatype="FP32", shape=[1, 2])
    async with grpc.aio.insecure_channel(server.grpc) as channel:
        infer = channel.unary_unary(
            f"/{SERVICE}/ModelInfer",
            request_serializer=CLASSES["ModelInferRequest"].SerializeToString,
            response_deserializer=CLASSES["ModelInferResponse"].FromString,
        )
        answers = []
        while not signalled.is_set():  # which happens within the last call
            answers.append(await infer(message))
        return answers


def test_everything_that_was_asked_is_answered(model: Path) -> None:
    async def test(server: Running) -> None:
        ends: list[str] = []
        signalled = asyncio.Event()
        clients = [keep_asking(server, ends) for _ in range(8)]
        large, calls, *counts = await asyncio.gather(
            send_slowly(server, signalled), ask_grpc(server, signalled), *clients
        )
        assert values(large) == [-1.5] * 8000
        assert calls
        for each in calls:
            assert np.frombuffer(each.raw_output_contents[0], np.float32).tolist() == [-1, -2]
        assert all(counts)
        assert len(ends) == 8

    with serving(model, "--max-wait", f"{WAIT}") as server:
        asyncio.run(test(server))
        assert server.process.wait(60) == 0
        assert not server.events("failed")


def test_a_body_that_does_not_come_does_not_hold_the_end(model: Path) -> None:
    with serving(model, "--read-timeout", "1", grpc=False) as server, silent(server) as connection:
        _until(server, READY, b'{"ready":true}')  # the server knows of the other request
        assert server.end(signal.SIGINT) == 130
        assert b" 408 " in connection.recv(1000)


def test_a_second_signal_does_not_wait(model: Path) -> None:
    with serving(model, "--read-timeout", "5000", "--timeout", "5000") as server, silent(server):
        _until(server, READY, b'{"ready":true}')
        server.process.send_signal(signal.SIGTERM)
        _until(server, READY, b"")  # it listens no more
        assert server.process.poll() is None
        assert server.end(signal.SIGINT) == 0


def test_a_call_without_its_message_has_an_end(model: Path) -> None:
    import grpc

    async def begin(server: Running, seconds: float) -> Any:
        async def nothing() -> AsyncIterator[bytes]:
            await asyncio.sleep(seconds)
            none: tuple[bytes, ...] = ()
            for each in none:
                yield each

        async with grpc.aio.insecure_channel(server.grpc) as channel:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await channel.stream_unary(f"/{SERVICE}/ModelInfer")(nothing())
        return caught.value

    with serving(model, "--read-timeout", "0.5") as server:
        error = asyncio.run(begin(server, 1000))
        assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert error.details() == "the request did not come in 0.5 seconds"
        assert asyncio.run(begin(server, 0)).code() is grpc.StatusCode.INVALID_ARGUMENT


def test_a_port_that_is_taken_for_grpc_ends_the_command(model: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = smx("serve", model, "--port", "0", "--grpc-port", str(port))
    refused(result, 1, f"can't listen on 127.0.0.1:{port}", "choose another")
    assert "Serving" not in result.stdout


def test_crowds_on_both_ports_leave_files_for_a_good_client(model: Path) -> None:
    few = ("/bin/sh", "-c", 'ulimit -n 160; exec "$@"', "-")
    with serving(model, "--read-timeout", "5000", prefix=few) as server, ExitStack() as stack:
        assert server.events("limited")[0]["connections"] == 48
        for address in (server.http, server.grpc, server.http):
            for _ in range(200):
                stack.enter_context(socket.create_connection(tuple(address.split(":"))))  # type: ignore[arg-type]
            _until(server, READY, b'{"ready":true}')


def test_a_closed_log_stops_nothing(model: Path) -> None:
    command = f"exec {sys.executable} -m smx serve {model} --port 0 --log-requests 2>&-"
    with serving(model, grpc=False, prefix=("/bin/sh", "-c", command)) as server:
        for _ in range(3):
            _until(server, READY, b'{"ready":true}')
            _until(server, "GET /nothing", b"Not Found")


@contextmanager
def silent(server: Running) -> Iterator[socket.socket]:
    """Send all of a request but its end."""
    with socket.create_connection(tuple(server.http.split(":"))) as connection:  # type: ignore[arg-type]
        connection.sendall(REQUEST[:-1])
        yield connection


def _until(server: Running, request: str, wanted: bytes) -> None:
    """Ask until the answer holds something; nothing is a connection that is refused."""
    while True:
        try:
            with socket.create_connection(tuple(server.http.split(":"))) as connection:  # type: ignore[arg-type]
                connection.sendall(f"{request} HTTP/1.0\r\n\r\n".encode())
                got = b"".join(iter(lambda: connection.recv(1000), b""))
        except OSError:
            got = b""
        if wanted in got if wanted else not got:
            return
