"""A request and its answer on a connection, as uvicorn has them, with a short way for requests that come at once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle

WHOLE = "smx.whole"
"""An extension of ASGI. It stands in `extensions` of the scope of a request that came as a whole before its application
starts. The application finds the `body` there, and may answer by one message of this type, with `status`, `headers` and
`body`."""


class Cycle(RequestResponseCycle):
    """A request and its answer."""

    @staticmethod
    def of(made: RequestResponseCycle, close: Callable[[], None]) -> Cycle:
        """Return what uvicorn made, which makes objects of its own class only, as one of this class.

        Args:
            made: by uvicorn.
            close: what is to be done instead of closing the transport.
        """
        made.__class__ = Cycle
        assert isinstance(made, Cycle)
        made.transport = _Gently(made.transport, close)  # type: ignore[assignment]
        return made

    async def send(self, message: Any) -> None:
        """Take a whole answer, too, which is one write, and whose headers need no check."""
        if message["type"] != WHOLE:
            await super().send(message)
            return
        if self.flow.write_paused and not self.disconnected:
            await self.flow.drain()
        if self.disconnected:
            return
        fields = [b"%s: %s\r\n" % field for field in (*self.default_headers, *message["headers"])]
        if not self.keep_alive:
            fields.append(b"connection: close\r\n")
        self.transport.write(b"".join((STATUS_LINE[message["status"]], *fields, b"\r\n", message["body"])))
        self.response_started = self.response_complete = True
        self.message_event.set()
        if not self.keep_alive:
            self.transport.close()
        self.on_response()


class _Gently:
    """What an answer is written to: the transport, but closing is the connection's own."""

    def __init__(self, transport: asyncio.Transport, close: Callable[[], None]) -> None:
        self.write, self.is_closing, self.close = transport.write, transport.is_closing, close
