"""The bodies of requests: read in time, and all of them together within a bound."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from starlette.requests import Request

from smx.runtime.serving.protocol import Cause, Refusal

ROOM = 256 * 2**20
"""Bytes of all bodies together; or of four, where these are more."""


@dataclass(eq=False)
class Reading:
    """A body that is being read, or answered.

    Attributes:
        size: bytes so far.
        time: in which it must come; None when it is complete.
        crowded_out: it was given up for others.
    """

    size: int = 0
    time: asyncio.Timeout | None = None
    crowded_out: bool = False


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
        self.held: set[Reading] = set()
        self.size = 0

    @asynccontextmanager
    async def read(self, request: Request) -> AsyncIterator[bytes]:
        """Read a body, and hold it until the request is answered.

        Raises:
            Refusal: it is compressed, larger than allowed, or does not come in time; or there is no room for it.
        """
        for header, taken in (("content-encoding", ("", "identity")), ("transfer-encoding", ("", "chunked"))):
            encoding = ",".join(request.headers.getlist(header)).strip().lower()
            if encoding not in taken:
                raise Refusal(Cause.ENCODING, f"bodies are taken as they are, not encoded as {encoding!r:.50}")
        if int(request.headers.get("content-length", "0")) > self.most:  # the parser took it for a number
            raise self._too_large()
        reading = Reading()
        self.held.add(reading)
        try:
            yield await self._parts(request, reading)
        finally:
            self.held.remove(reading)
            self.size -= reading.size

    async def _parts(self, request: Request, reading: Reading) -> bytes:
        parts = []
        try:
            async with asyncio.timeout(self.seconds) as reading.time:
                async for part in request.stream():
                    parts.append(part)
                    reading.size += len(part)
                    self.size += len(part)
                    if reading.size > self.most:
                        raise self._too_large()
                    if self.size > self.room:
                        self._make_room(reading)
        except TimeoutError as error:
            if reading.crowded_out:
                raise self._full() from error
            raise Refusal(Cause.SLOW, f"the body did not come in {self.seconds:g} seconds") from error
        reading.time = None
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _make_room(self, newest: Reading) -> None:
        coming = [each for each in self.held if each.time is not None and not each.crowded_out]
        largest = max(coming, key=lambda each: each.size)
        if largest is newest:
            raise self._full()
        largest.crowded_out = True
        assert largest.time is not None
        largest.time.reschedule(asyncio.get_running_loop().time())

    def _too_large(self) -> Refusal:
        return Refusal(Cause.TOO_LARGE, f"a body may have {self.most} bytes")

    def _full(self) -> Refusal:
        return Refusal(Cause.BUSY, f"bodies of more than {self.room} bytes are being read; try again later")
