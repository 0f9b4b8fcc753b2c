"""Talking to a server byte by byte, as no library does."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import socket
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random

CALLER_ERRORS = frozenset(range(400, 500))
MAX_MESSAGE = 1000
LEAKS = re.compile(r"Traceback|\.py\b|/home/|/tmp/|/root/|site-packages|onnxruntime_src|[\x00-\x1f\x7f]")


@dataclass(frozen=True)
class Target:
    """A running server.

    Attributes:
        host, port, grpc_port: where it listens.
        read_timeout: of its settings, in seconds.
        max_body: of its settings, in bytes.
    """

    host: str
    port: int
    grpc_port: int
    read_timeout: float
    max_body: int

    @property
    def patience(self) -> float:
        """Seconds in which each request must be answered or refused, on a machine that has much to do."""
        return 6 * self.read_timeout + 20


@dataclass(frozen=True)
class Answer:
    """What came back over HTTP."""

    status: int
    headers: dict[str, str]
    body: bytes

    def fault(self, may: frozenset[int]) -> str | None:
        """Return what is wrong with it, if it has to be an error in the protocol's shape, or one of the statuses."""
        if self.status in may:
            return None
        if self.status not in CALLER_ERRORS:
            return f"status {self.status}: {self.body[:200]!r}"
        if self.headers.get("content-type") != "application/json":
            return f"{self.status} of the type {self.headers.get('content-type')}"
        if not self.body and self.headers.get("content-length") != "0":  # of a HEAD
            return None
        try:
            content = json.loads(self.body)
            message = content["error"]
            assert content.keys() == {"error"}
            assert isinstance(message, str)
        except Exception:
            return f"{self.status} not in the protocol's shape: {self.body[:200]!r}"
        if not 0 < len(message) <= MAX_MESSAGE:
            return f"{self.status} with a message of {len(message)} letters"
        if LEAKS.search(message):
            return f"{self.status} tells too much: {message}"
        return None


@dataclass(frozen=True, kw_only=True)
class Case:
    """One hostile request.

    Attributes:
        send: what is sent: bytes, and pauses in seconds.
        may: statuses that are right, beside 4xx in the protocol's shape and a closed connection.
        answers: how many answers are read, at most.
        end: what the client does after sending: `read` what comes, `finish` its side and read, or `vanish`.
        check: a further demand on the answers; returns what is wrong.
        connections: of this at the same time.
    """

    send: Sequence[bytes | float]
    may: frozenset[int] = frozenset()
    answers: int = 1
    end: str = "read"
    check: Callable[[list[Answer]], str | None] = lambda answers: None
    connections: int = 1


Kind = Callable[[Random, Target], Case]


async def run(case: Case, target: Target) -> tuple[list[str], list[str]]:
    """Return what came, `closed` or a status for each connection, and what was wrong."""
    answers = await asyncio.gather(*(_talk(case, target) for _ in range(case.connections)))
    outcomes, faults = [], []
    for got in answers:
        statuses = ", ".join(sorted({str(answer.status) for answer in got}))
        outcomes.append(f"{statuses} ({len(got)} answers)" if len(got) > 1 else statuses or "closed")
        faults += [fault for answer in got if (fault := answer.fault(case.may))]
        faults += [fault for fault in [case.check(got)] if fault]
    return outcomes, faults


async def _talk(case: Case, target: Target) -> list[Answer]:
    answers: list[Answer] = []
    sending: asyncio.Task[None] | None = None
    try:
        async with asyncio.timeout(target.patience):
            reader, writer = await asyncio.open_connection(target.host, target.port, limit=2**26)
    except OSError:  # the server may close it at once
        return answers
    try:
        async with asyncio.timeout(target.patience):
            sending = asyncio.create_task(_send(writer, case))
            if case.end == "vanish":
                await sending
                transport: asyncio.WriteTransport = writer.transport
                sock: socket.socket = transport.get_extra_info("socket")
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                return answers
            while len(answers) < case.answers:
                answer = await _read(reader)
                if answer is None:
                    break
                answers.append(answer)
    except TimeoutError:
        answers.append(Answer(0, {}, b"neither an answer nor closed"))
    except OSError:
        pass
    finally:
        if sending is not None:
            sending.cancel()
        writer.transport.abort() if case.end == "vanish" else writer.close()
    return answers


async def _send(writer: asyncio.StreamWriter, case: Case) -> None:
    with contextlib.suppress(OSError):
        for part in case.send:
            if isinstance(part, float):
                await asyncio.sleep(part)
            else:
                writer.write(part)
                await writer.drain()
        if case.end == "finish":
            writer.write_eof()


async def _read(reader: asyncio.StreamReader) -> Answer | None:
    """Read one answer; None where the connection ends first."""
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        line, *fields = head.rstrip().split("\r\n")
        status = int(line.split(" ", 2)[1])
        headers = {name.lower(): value.strip() for name, _, value in (field.partition(":") for field in fields)}
        if status == 100:
            return await _read(reader)
        body = await reader.readexactly(int(headers.get("content-length", "0"))) if status != 204 else b""
    except asyncio.IncompleteReadError as error:
        return Answer(0, {}, b"no HTTP: " + error.partial) if error.partial and error.expected is None else None
    return Answer(status, headers, body)


def request(method: str, path: str | bytes, body: bytes = b"", *headers: bytes) -> bytes:
    """Return a request whose length is right."""
    place = path if isinstance(path, bytes) else path.encode()
    fields = b"".join(field + b"\r\n" for field in headers)
    return b"%s %s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n%s\r\n%s" % (
        method.encode(),
        place,
        len(body),
        fields,
        body,
    )
