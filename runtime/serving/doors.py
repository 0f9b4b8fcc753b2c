"""Where connections come in: plain ones at once, those with TLS after a handshake that has its time, too."""

from __future__ import annotations

import asyncio
import ssl
import types
from collections.abc import Callable, Coroutine, Generator
from typing import Any, ClassVar, TypeVar

from smx.runtime.serving.connections import GuardedProtocol
from smx.runtime.serving.crowd import Crowd

T = TypeVar("T")


def protocol_class(
    crowd: Crowd,
    read_timeout: float,
    idle_timeout: float,
    draining: Callable[[], bool],
    tls: ssl.SSLContext | None,
) -> type[asyncio.Protocol]:
    """Return the class of the connections of one server; see `GuardedProtocol` for the arguments."""
    own: dict[str, Any] = {"crowd": crowd, "read_timeout": read_timeout, "idle_timeout": idle_timeout}
    plain = type("PlainProtocol", (GuardedProtocol,), {**own, "draining": staticmethod(draining)})
    if tls is None:
        return plain
    return type("TlsProtocol", (TlsDoor,), {"behind": plain, "tls": tls})


class TlsDoor(asyncio.Protocol):
    """A connection before its TLS handshake: it counts like any other, and has the time of a request's headers.

    Attributes:
        behind: the class of the connection after the handshake.
        tls: certificate and key.
    """

    behind: ClassVar[type[GuardedProtocol]]
    tls: ClassVar[ssl.SSLContext]

    def __init__(self, **options: Any) -> None:
        self.options = options
        self.early = bytearray()
        """What came before the handshake began: uvloop reads as soon as there is a connection."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the handshake."""
        self.transport = transport
        self.behind.crowd.enter(self)
        if not transport.is_closing():
            self.handshake = asyncio.get_running_loop().create_task(self._shake_hands())

    def data_received(self, data: bytes) -> None:
        """Keep what comes too early."""
        self.early += data

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self.behind.crowd.leave(self)

    def abort(self) -> None:
        """End at once."""
        self.transport.abort()

    async def _shake_hands(self) -> None:
        lobby, seconds = _Lobby(), self.behind.read_timeout
        try:
            starting = asyncio.get_running_loop().start_tls(
                self.transport,
                lobby,
                self.tls,
                server_side=True,
                ssl_handshake_timeout=seconds,
                ssl_shutdown_timeout=seconds,
            )
            transport = await _then(starting, self._pass_on)
        except (OSError, asyncio.CancelledError):  # ssl.SSLError is one; so is what a client that vanishes causes
            self.transport.abort()
            return
        finally:
            self.behind.crowd.leave(self)
        if transport is None or lobby.gone:
            return
        inner = self.behind(**self.options)
        transport.set_protocol(inner)
        inner.connection_made(transport)
        if lobby.data and not transport.is_closing():
            inner.data_received(bytes(lobby.data))

    def _pass_on(self) -> None:
        """Give TLS what came before it."""
        reader: Any = self.transport.get_protocol()
        if hasattr(reader, "get_buffer"):
            while self.early and not self.transport.is_closing():
                room = reader.get_buffer(len(self.early))
                size = min(len(room), len(self.early))
                room[:size] = self.early[:size]
                del self.early[:size]
                reader.buffer_updated(size)


@types.coroutine
def _then(begun: Coroutine[Any, Any, T], after: Callable[[], object]) -> Generator[Any, Any, T]:
    """Await something, and call a function right behind those that its beginning puts on the loop."""
    waited = begun.send(None)
    asyncio.get_running_loop().call_soon(after)
    yield waited
    return (yield from begun.__await__())


class _Lobby(asyncio.Protocol):
    """Keeps what comes with the last message of the handshake, before the task that waits for that goes on."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.gone = False

    def data_received(self, data: bytes) -> None:
        self.data += data

    def eof_received(self) -> bool:
        self.gone = True
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self.gone = True
