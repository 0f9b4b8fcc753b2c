"""HTTP connections that can't hold up the server: uvicorn's protocol with limits on time, headers and number.

uvicorn reads HTTP, starts the application and writes its answers. It lets a client send headers without an end, stay
silent within a request, send any number of requests at once, and not read its answers. Here

1. a request's line and headers, and each part of a body that is not its data, have a size and a number;
2. each thing that a client has to do has a time: see `GuardedProtocol`;
3. a connection whose client is slow makes room for others: see `Crowd`;
4. refusals are in the protocol's shape, and clients get to read them although they are still sending.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, ClassVar

import orjson
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from smx.runtime.serving.crowd import Crowd
from smx.runtime.serving.cycle import WHOLE, Cycle

MAX_HEAD = 32 * 2**10
"""Bytes of a request's line and headers; also of a chunk's line, and of trailers."""
MAX_FIELDS = 128
"""Headers of a request."""
MAX_PIPELINED = 64
"""Requests that may wait on one connection for the one before them."""
FAREWELL = 2.0
"""Seconds for which a client that was refused may go on sending: closing at once would destroy the answer."""


class GuardedProtocol(HttpToolsProtocol):
    """A connection.

    The class attributes are set once, by the server; uvicorn makes the objects.

    Attributes:
        read_timeout: seconds for the first request to begin, for the headers of a request, for what is left of a body
            after its answer, and without any progress while an answer is read. The application watches bodies.
        idle_timeout: seconds until the next request begins.
        crowd: all connections.
        draining: whether the server ends: every connection does with its answer.
        log: is called with an event's name and its fields, where what comes is refused before it is a request.
    """

    read_timeout: ClassVar[float] = 10.0
    idle_timeout: ClassVar[float] = 75.0
    crowd: ClassVar[Crowd] = Crowd(1024)
    draining: ClassVar[Callable[[], bool]] = staticmethod(lambda: False)
    log: ClassVar[Callable[..., None]] = staticmethod(lambda event, **fields: None)

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._timer: asyncio.TimerHandle | None = None
        self._write_timer: asyncio.TimerHandle | None = None
        self._unsent = 0
        self._loose = 0
        """Bytes since the last part of a request began, without the data of its body."""
        self._begun = False
        """Whether a request has begun whose headers are not complete."""
        self._head_timed = False
        """Whether the time of those headers runs; most come whole, and need none."""
        self._fresh = False
        """Whether a request's headers came with what is being parsed, so that its application has not started."""
        self._trailers = 0
        """Fields that came after the body of the request."""
        self._receiving = False
        """Whether a request's headers are complete and its body is not."""
        self._deaf = False
        """Whether what comes is thrown away."""
        self._ending = False
        """Whether the last answer is given."""
        self._refusal = 400, "this is no HTTP request"

    # What the transport says

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take the connection; make room for it."""
        super().connection_made(transport)
        self._watch(self.read_timeout, self.abort)
        self.crowd.enter(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        if self.transport is None:  # a TLS handshake failed
            return
        self.crowd.leave(self)
        self._unwatch()
        self._unwatch_writing()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse what comes, and count what is no data."""
        if self._deaf:
            return
        self._loose = max(self._loose, 0) + len(data)
        super().data_received(data)
        self._fresh = False
        if self._begun and not self._head_timed and not self._active and not self._ending:
            self._head_timed = True
            self._watch(self.read_timeout, self._too_slow)
        if self._loose > MAX_HEAD and not self._deaf:
            self._refusal = 431, f"the headers have more than {MAX_HEAD} bytes"
            self.send_400_response("")

    def eof_received(self) -> bool:  # type: ignore[override]
        """Close, but for a client that has said all and waits for its answer."""
        if self._active and not self._receiving and not self._ending and self.transport.can_write_eof():
            self._answer_and_end()
            return True
        return False

    def pause_writing(self) -> None:
        """Wait for a client that does not read."""
        super().pause_writing()
        self.crowd.wait(self)
        self._watch_writing()

    def resume_writing(self) -> None:
        """Go on with a client that reads."""
        super().resume_writing()
        if not self._ending:
            self._unwatch_writing()

    # What the parser says

    def on_message_begin(self) -> None:
        """Start the time of the headers."""
        if len(self.pipeline) >= MAX_PIPELINED:
            raise self._refused(429, f"more than {MAX_PIPELINED} requests wait on this connection")
        self._begun, self._head_timed, self._trailers = True, False, 0
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Count the headers. What follows a body is none (RFC 9110, 6.5.1): its bytes count, and it is thrown away."""
        if self._receiving:
            self._trailers += 1
        if len(self.headers) + self._trailers >= MAX_FIELDS + self._receiving:
            raise self._refused(431, f"a request may have {MAX_FIELDS} headers")
        if not self._receiving:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Start the request."""
        if self._loose > MAX_HEAD:  # with the begin of the body
            size = len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
            if size > MAX_HEAD:
                raise self._refused(431, f"the headers have more than {MAX_HEAD} bytes")
        if not self._active:
            self._unwatch()
        self._loose, self._begun, self._receiving, self._fresh = 0, False, True, True
        super().on_headers_complete()
        self.cycle = Cycle.of(self.cycle, self.close)
        if type(self).draining():
            self.cycle.keep_alive = False

    def on_chunk_header(self) -> None:
        """Count the next chunk's line anew."""
        self._loose = 0

    def on_body(self, body: bytes) -> None:
        """Hand over a part of the body."""
        self._loose -= len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Wait for the application, or for the next request where this one is answered already."""
        super().on_message_complete()
        if self._fresh:
            self.scope["extensions"] = {WHOLE: {"body": bytes(self.cycle.body)}}
        self._receiving = False
        if self._active:
            self.crowd.work(self)
            if not self.cycle.keep_alive:
                self._deaf = True
        elif not self._ending:
            self._watch(self.idle_timeout, self._too_idle)

    # What uvicorn says

    def on_response_complete(self) -> None:
        """Wait for the next request."""
        super().on_response_complete()
        self._unset_keepalive_if_required()
        if self._active or self._ending or self.transport.is_closing():
            return
        self.crowd.wait(self)
        if self._receiving:
            self._watch(self.read_timeout, self.abort)
        elif self._begun:
            self._watch(self.read_timeout, self._too_slow)
        else:
            self._watch(self.idle_timeout, self._too_idle)

    def drain(self) -> None:
        """End with the answer that is due; a connection without one may still get a request that is on its way."""
        if self._active:
            self.cycle.keep_alive = False

    def shutdown(self) -> None:
        """Close what is idle; the rest ends with its answer."""
        if self._active:
            self.cycle.keep_alive = False
        elif not self._begun:
            self.close()

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no HTTP; but first answer what was asked before."""
        if self._active and not self._receiving:
            self._answer_and_end()
        elif self._active and (self.pipeline or self.cycle.response_started):
            self.abort()
        else:
            self._refuse(*self._refusal)

    def _unsupported_upgrade_warning(self) -> None:
        """Answer a request for another protocol as if it had not asked for that; what follows would be no HTTP."""
        if self._active:
            self._answer_and_end()

    # How a connection ends

    def abort(self) -> None:
        """End at once."""
        self.transport.abort()

    def close(self) -> None:
        """End when the answer is sent; a client that is still sending gets the time to see it."""
        if self._ending:
            return
        self._deaf = self._ending = True
        self.pipeline.clear()
        self._unset_keepalive_if_required()
        self.crowd.wait(self)
        if self._receiving and self.transport.can_write_eof() and not self.transport.is_closing():
            self.transport.write_eof()
            self._watch(min(FAREWELL, self.read_timeout), self.abort)
        else:
            self.transport.close()
            self._unwatch()
        self._watch_writing()

    def _answer_and_end(self) -> None:
        self.cycle.keep_alive = False
        self._deaf = True

    def _refuse(self, status: int, message: str) -> None:
        if self._ending or self.transport.is_closing():
            return
        type(self).log("refused_connection", status=status, error=message, client=self.client and self.client[0])
        body = orjson.dumps({"error": message})
        head = b"content-type: application/json\r\nconnection: close\r\ncontent-length: %d\r\n\r\n" % len(body)
        self.transport.write(STATUS_LINE[status] + head + body)
        if self.cycle is not None:  # its application must not answer any more
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        self._receiving = True  # whatever it is
        self.close()

    def _refused(self, status: int, message: str) -> Exception:
        """Return what a callback of the parser raises to refuse a request."""
        self._refusal = status, message
        return ValueError(message)

    # Time

    @property
    def _active(self) -> bool:
        """Whether an answer is due."""
        return self.cycle is not None and not self.cycle.response_complete

    def _watch(self, seconds: float, then: Callable[[], None]) -> None:
        self._unwatch()
        self._timer = self.loop.call_later(seconds, then)

    def _unwatch(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _too_slow(self) -> None:
        self._refuse(408, f"the headers did not come in {self.read_timeout:g} seconds")

    def _too_idle(self) -> None:
        """End the connection, but for a client that is still reading its answer."""
        if not self.transport.get_write_buffer_size():
            self.abort()
            return
        if self._write_timer is None:
            self._watch_writing()
        self._watch(self.idle_timeout, self._too_idle)

    def _watch_writing(self) -> None:
        """End the connection where nothing at all is read for a while."""
        self._unwatch_writing()
        self._unsent = self.transport.get_write_buffer_size()
        self._write_timer = self.loop.call_later(self.read_timeout, self._check_writing)

    def _unwatch_writing(self) -> None:
        if self._write_timer is not None:
            self._write_timer.cancel()
            self._write_timer = None

    def _check_writing(self) -> None:
        if self.transport.get_write_buffer_size() >= self._unsent:
            self.abort()
        else:
            self._watch_writing()


def protocol_class(
    crowd: Crowd,
    read_timeout: float,
    idle_timeout: float,
    draining: Callable[[], bool],
    log: Callable[..., None],
) -> type[GuardedProtocol]:
    """Return the class of the connections of one server; see `GuardedProtocol` for the arguments."""
    own: dict[str, Any] = {"crowd": crowd, "read_timeout": read_timeout, "idle_timeout": idle_timeout}
    own |= {"draining": staticmethod(draining), "log": staticmethod(log)}
    return type("Connection", (GuardedProtocol,), own)
