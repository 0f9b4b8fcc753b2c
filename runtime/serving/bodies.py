"""The bodies of requests: read in time, and all of them together within a bound."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from starlette.requests import ClientDisconnect, Request
from starlette.types import Receive, Scope

from smx.runtime.serving.cycle import WHOLE
from smx.runtime.serving.protocol import Cause, Gone, Refusal

ROOM = 256 * 2**20
"""Bytes of all bodies together; or of four, where these are more."""
TAKEN = {b"content-encoding": (b"", b"identity"), b"transfer-encoding": (b"", b"chunked")}
"""How a body may come."""


class Bodies:
    """The bodies that a server holds.

    Where there is no room for more, the largest one that is still coming is given up, so that no clients with large
    bodies, sent slowly, keep out those with small ones.

    Args:
        most: bytes of one body.
        seconds: for one body to come.
    """

    def __init__(self, most: int, seconds: float) -> None:
        self.most, self.seconds, self.room = most, seconds, max(ROOM, 4 * most)
        self.held: set[Body] = set()
        self.size = 0

    def read(self, scope: Scope, receive: Receive) -> Body:
        """Return a request's body, for `async with`: it is read, and held until the request is answered."""
        return Body(self, scope, receive)

    @contextmanager
    def whole(self, body: bytes) -> Iterator[None]:
        """Hold a body that has come another way, until the end of the block.

        Raises:
            Refusal: there is no room for it.
        """
        if self.size + len(body) > self.room:
            raise self.full()
        self.size += len(body)
        try:
            yield
        finally:
            self.size -= len(body)

    def make_room(self, newest: Body) -> None:
        """Give up the largest body that is still coming.

        Raises:
            Refusal: this is the newest.
        """
        coming = [each for each in self.held if each.time is not None and not each.crowded_out]
        largest = max(coming, key=lambda each: each.size, default=newest)
        if largest is newest:
            raise self.full()
        largest.crowded_out = True
        assert largest.time is not None
        largest.time.reschedule(asyncio.get_running_loop().time())

    def full(self) -> Refusal:
        """Return the refusal of a body for which there is no room."""
        return Refusal(Cause.BUSY, f"bodies of more than {self.room} bytes are being read; try again later")


class Body:
    """A body that is being read, or answered.

    Attributes:
        size: bytes so far.
        time: in which it must come; None when it is complete.
        crowded_out: it was given up for others.
    """

    def __init__(self, bodies: Bodies, scope: Scope, receive: Receive) -> None:
        self.bodies, self.scope, self.receive = bodies, scope, receive
        self.size = 0
        self.time: asyncio.Timeout | None = None
        self.crowded_out = False

    async def __aenter__(self) -> bytes:
        """Read it.

        Raises:
            Refusal: it is compressed, larger than allowed, or does not come in time; or there is no room for it.
            Gone: the client went away.
        """
        self._check_headers()
        self.bodies.held.add(self)
        try:
            whole = self.scope.get("extensions", {}).get(WHOLE)
            if whole is None:
                return await self._read()
            body: bytes = whole["body"]
            self._hold(body)
            return body
        except BaseException:
            self._release()
            raise

    async def __aexit__(self, *raised: object) -> None:
        """Let it go."""
        self._release()

    def _check_headers(self) -> None:
        for name, value in self.scope["headers"]:
            if name in TAKEN and value.strip().lower() not in TAKEN[name]:
                encoding = value.decode("latin-1")
                raise Refusal(Cause.ENCODING, f"bodies are taken as they are, not encoded as {encoding!r:.50}")
            if name == b"content-length" and int(value) > self.bodies.most:  # the parser took it for a number
                raise self._too_large()

    async def _read(self) -> bytes:
        parts, bodies = [], self.bodies
        try:
            async with asyncio.timeout(bodies.seconds) as self.time:
                async for part in Request(self.scope, self.receive).stream():
                    parts.append(part)
                    self._hold(part)
        except ClientDisconnect as error:
            raise Gone from error
        except TimeoutError as error:
            if self.crowded_out:
                raise bodies.full() from error
            raise Refusal(Cause.SLOW, f"the body did not come in {bodies.seconds:g} seconds") from error
        self.time = None
        return parts[0] if len(parts) == 2 else b"".join(parts)  # the last part is empty

    def _hold(self, part: bytes) -> None:
        self.size += len(part)
        self.bodies.size += len(part)
        if self.size > self.bodies.most:
            raise self._too_large()
        if self.bodies.size > self.bodies.room:
            self.bodies.make_room(self)

    def _release(self) -> None:
        self.bodies.held.discard(self)
        self.bodies.size -= self.size
        self.size = 0

    def _too_large(self) -> Refusal:
        return Refusal(Cause.TOO_LARGE, f"a body may have {self.bodies.most} bytes")
