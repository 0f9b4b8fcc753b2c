"""HTTP connections that can't hold up the server: uvicorn's protocol with limits on time, headers and number."""

from __future__ import annotations

import asyncio
from typing import Any, ClassVar

import orjson
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

MAX_HEADERS = 64 * 2**10
"""Bytes of a request's line and headers."""


class GuardedProtocol(HttpToolsProtocol):
    """A connection that is closed when its client is too slow, or says too much before its body.

    The class attributes are set once, by the server; uvicorn makes the objects.

    Attributes:
        read_timeout: seconds for the headers of a request from its first byte, and from the connection to that.
        max_connections: above that, the one that waits the longest for a request is closed.
    """

    read_timeout: ClassVar[float] = 10.0
    max_connections: ClassVar[int] = 1024
    waiting: ClassVar[dict[GuardedProtocol, None]] = {}
    """Connections without a request, the longest waiting first."""

    _timer: asyncio.TimerHandle | None = None
    _header_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take the connection; make room for it."""
        super().connection_made(transport)
        if len(self.connections) > self.max_connections:
            if not self.waiting:
                transport.abort()
                return
            next(iter(self.waiting)).transport.abort()
        self.waiting[self] = None
        self._restart()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self.waiting.pop(self, None)
        self._stop()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Count the bytes of the headers, then parse."""
        if self in self.waiting:
            self._header_bytes += len(data)
            if self._timer is None:
                self._restart()
        super().data_received(data)
        if self in self.waiting and self._header_bytes > MAX_HEADERS:
            self._refuse(431, f"the headers have more than {MAX_HEADERS} bytes")

    def on_headers_complete(self) -> None:
        """Start the request: from here on the application watches the time."""
        self.waiting.pop(self, None)
        self._stop()
        super().on_headers_complete()

    def on_response_complete(self) -> None:
        """Wait for the next request."""
        super().on_response_complete()
        if not self.pipeline and not self.transport.is_closing():
            self._header_bytes = 0
            self.waiting[self] = None

    def send_400_response(self, msg: str) -> None:
        """Refuse in the protocol's shape what is no HTTP."""
        self._refuse(400, msg)

    def timeout_keep_alive_handler(self) -> None:
        """Close a connection that stays without a request, even if its client does not read."""
        self.transport.abort()

    def _refuse(self, status: int, message: str) -> None:
        if self.transport.is_closing():
            return
        body = orjson.dumps({"error": message})
        head = b"content-type: application/json\r\nconnection: close\r\ncontent-length: %d\r\n\r\n" % len(body)
        self.transport.write(STATUS_LINE[status] + head + body)
        self.transport.close()

    def _restart(self) -> None:
        self._stop()
        self._timer = self.loop.call_later(self.read_timeout, self._too_slow)

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _too_slow(self) -> None:
        self._timer = None
        if self._header_bytes:
            self._refuse(408, f"the headers did not come in {self.read_timeout:g} seconds")
        else:
            self.transport.abort()


def limited(read_timeout: float, max_connections: int) -> type[Any]:
    """Return the class of the connections of one server."""
    own: dict[str, Any] = {"read_timeout": read_timeout, "max_connections": max_connections, "waiting": {}}
    return type("LimitedProtocol", (GuardedProtocol,), own)
