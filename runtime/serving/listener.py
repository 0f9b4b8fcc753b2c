"""Where connections come in: plain ones at once, those with TLS after a handshake that counts and has a time, too.

The event loop's own servers take as many connections as there are, know nothing of one before its handshake is done,
and throw away at their end those that the system has made and they have not taken.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Callable, Sequence

from smx.runtime.serving.crowd import Crowd

BACKLOG = 2048
"""Connections that the system makes before they are taken."""
AT_ONCE = 16
"""Connections that are taken before others get their turn."""
RETRY = 0.1
"""Seconds until the next try, where this process has no files left."""


class Handshake:
    """A connection whose TLS handshake is not done."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection

    def abort(self) -> None:
        """End it at once."""
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)


class Listener:
    """Takes connections until it is closed.

    Args:
        sockets: bound ones.
        make: returns the protocol of the next connection.
        crowd: that connections belong to before they have a protocol.
        tls: certificate and key; None is no TLS.
        seconds: for a handshake, and for the end of TLS.

    Attributes:
        greeting: the connections that have no protocol yet.
    """

    def __init__(
        self,
        sockets: Sequence[socket.socket],
        make: Callable[[], asyncio.Protocol],
        crowd: Crowd,
        tls: ssl.SSLContext | None,
        seconds: float,
    ) -> None:
        self.sockets, self.make, self.crowd, self.tls, self.seconds = sockets, make, crowd, tls, seconds
        self.loop = asyncio.get_running_loop()
        self.greeting: set[asyncio.Task[None]] = set()
        self.closed = False
        for each in sockets:
            each.setblocking(False)
            each.listen(BACKLOG)
            self._listen(each)

    def close(self) -> None:
        """Take what has come, and no more."""
        if self.closed:
            return
        self.closed = True
        for each in self.sockets:
            self.loop.remove_reader(each)
            while self._take(each):
                pass
            each.close()

    async def wait_closed(self) -> None:
        """Do nothing: closing does not wait."""

    def _listen(self, listening: socket.socket) -> None:
        if not self.closed:
            self.loop.add_reader(listening, self._take_some, listening)

    def _take_some(self, listening: socket.socket) -> None:
        for _ in range(AT_ONCE):
            if not self._take(listening):
                return

    def _take(self, listening: socket.socket) -> bool:
        """Take a connection, if there is one."""
        try:
            connection, _ = listening.accept()
        except (BlockingIOError, ConnectionError, InterruptedError):
            return False
        except OSError:  # no files are left
            self.loop.remove_reader(listening)
            self.loop.call_later(RETRY, self._listen, listening)
            return False
        connection.setblocking(False)
        task = self.loop.create_task(self._greet(connection))
        self.greeting.add(task)
        task.add_done_callback(self.greeting.discard)
        return True

    async def _greet(self, connection: socket.socket) -> None:
        try:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self.tls is None:
                await self.loop.connect_accepted_socket(self.make, connection)
                return
            member = Handshake(connection)
            self.crowd.enter(member)
            try:
                await self.loop.connect_accepted_socket(
                    self.make,
                    connection,
                    ssl=self.tls,
                    ssl_handshake_timeout=self.seconds,
                    ssl_shutdown_timeout=self.seconds,
                )
            finally:
                self.crowd.leave(member)
        except OSError:  # ssl.SSLError is one; so is what a client that vanishes causes
            connection.close()
