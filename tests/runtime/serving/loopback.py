"""A server of connections in this process, and a client that sends what it likes."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import uvicorn
import uvloop
from uvicorn.server import ServerState

from smx.runtime.serving.connections import protocol_class
from smx.runtime.serving.crowd import Crowd
from smx.runtime.serving.cycle import WHOLE
from smx.runtime.serving.listener import Listener

SOON = 0.3
"""Seconds for what a client does, where it is to be too slow."""
NEVER = 1000.0
BIG = 8 * 2**20
GET = b"GET /%s HTTP/1.1\r\nHost: x\r\n\r\n"
START = GET[:-2] % b"now"
POST = b"POST /%s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n"
CHUNKED = b"POST /%s HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"


@dataclass
class Application:
    """Answers by path: `/now` without the body, `/all` with the body's length, `/big`, `/later` when it may.

    `/whole` answers by one message, for a request that came at once, with its body four times.

    Attributes:
        may: lets `/later` answer.
        headers: of the last request.
        gone: requests whose client went before its body was complete.
    """

    may: asyncio.Event = field(default_factory=asyncio.Event)
    gone: int = 0
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        size, more, path = 0, scope["path"] == "/all", scope["path"]
        whole, self.headers = scope.get("extensions", {}).get(WHOLE), scope["headers"]
        if path == "/whole" and whole is not None:
            body = whole["body"] * 4
            length = (b"content-length", b"%d" % len(body))
            await send({"type": WHOLE, "status": 200, "headers": [length], "body": body})
            return
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                self.gone += 1
                return
            size, more = size + len(message["body"]), message["more_body"]
        if path == "/later":
            await self.may.wait()
        body = bytes(BIG) if path == "/big" else f"{path} {size}".encode()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
        await send({"type": "http.response.body", "body": body})


@dataclass
class Server:
    """A server in this process."""

    port: int
    app: Application
    crowd: Crowd
    tls: ssl.SSLContext | None
    ending: list[bool]
    listener: Listener
    events: list[tuple[str, dict[str, Any]]]
    writers: list[asyncio.StreamWriter] = field(default_factory=list)

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, ssl=self.tls, limit=2 * BIG)
        self.writers.append(writer)
        return reader, writer

    async def talk(self, *parts: bytes) -> bytes:
        """Send parts, and return all that comes until the connection ends."""
        reader, writer = await self.connect()
        with contextlib.suppress(ConnectionError):
            for part in parts:
                writer.write(part)
                await writer.drain()
        got = bytearray()
        with contextlib.suppress(ConnectionError):
            while part := await reader.read(2**16):
                got += part
        writer.close()
        return bytes(got)

    async def empty(self) -> None:
        """Wait until all connections have ended."""
        while self.crowd.members:
            await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def serving(
    *, read: float = NEVER, idle: float = NEVER, most: int = 100, certificate: tuple[Path, Path] | None = None
) -> AsyncIterator[Server]:
    app, crowd, ending = Application(), Crowd(most), [False]
    events: list[tuple[str, dict[str, Any]]] = []
    protocol = protocol_class(
        crowd, read, idle, lambda: ending[0], lambda event, **fields: events.append((event, fields))
    )
    config, state = uvicorn.Config(app, http=protocol, ws="none", lifespan="off", log_config=None), ServerState()
    config.load()
    tls = client = None
    if certificate is not None:
        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        tls.load_cert_chain(*certificate)
        client = ssl.create_default_context(cafile=str(certificate[0]))
        client.check_hostname = False
    bound = socket.create_server(("127.0.0.1", 0))
    loop = asyncio.get_running_loop()
    listener = Listener(
        [bound], lambda: protocol(config=config, server_state=state, app_state={}, _loop=loop), crowd, tls, read
    )
    port = bound.getsockname()[1]
    server = Server(port, app, crowd, client, ending, listener, events)
    try:
        yield server
    finally:
        for writer in server.writers:
            writer.transport.abort()
        listener.close()
        app.may.set()
        for member in [*crowd.members]:
            member.abort()
        await asyncio.gather(*state.tasks, *listener.greeting, return_exceptions=True)
        await asyncio.sleep(0)


def run(test: Callable[[], Awaitable[None]]) -> None:
    async def within() -> None:
        async with asyncio.timeout(60):
            await test()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(within())


def refusal(got: bytes, status: int) -> str:
    """Return the text of a refusal, and check its form."""
    head, _, body = got.partition(b"\r\n\r\n")
    line, *fields = head.decode().split("\r\n")
    assert line.split()[1] == str(status), got
    assert "content-type: application/json" in fields
    assert "connection: close" in fields
    content = json.loads(body)
    assert content.keys() == {"error"}
    text: str = content["error"]
    return text


def bodies(got: bytes) -> list[str]:
    """Return the bodies of answers to `/now`, `/all` and `/later`."""
    return [part.split(b"HTTP/1.1")[0].decode() for part in got.split(b"\r\n\r\n")[1:]]
