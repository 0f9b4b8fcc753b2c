"""A loop that computes a while for each request and answers with nothing, for `serving_load.py --bare`.

It shows what the machine itself makes of 64 connections: the same processor time a request, and none of our server.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from typing import cast

import uvloop

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"


def work(rounds: int) -> None:
    """Compute something."""
    for _ in range(rounds):
        sum(range(100))


def rounds_of(seconds: float) -> int:
    """Return how many rounds of `work` take so long; the machine at its quickest decides."""
    best = float("inf")
    for _ in range(200):
        start = time.perf_counter()
        work(100)
        best = min(best, time.perf_counter() - start)
    return round(100 * seconds / best)


class Connection(asyncio.Protocol):
    """A client's connection. A request ends where `length` bytes of body have come.

    Args:
        rounds: of `work` for each request.
    """

    def __init__(self, rounds: int) -> None:
        self.rounds = rounds
        self.got = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep it."""
        self.transport = cast("asyncio.Transport", transport)  # uvloop's is none by class

    def data_received(self, data: bytes) -> None:
        """Answer each request that is whole."""
        self.got += data
        head, end, body = self.got.partition(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0] or 0)
        if end and len(body) >= length:
            self.got = body[length:]
            work(self.rounds)
            self.transport.write(ANSWER)


async def main(port: int, rounds: int) -> None:
    """Serve until a signal ends it."""
    server = await asyncio.get_running_loop().create_server(lambda: Connection(rounds), "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--seconds", type=float, required=True, help="Of work for each request.")
    arguments = parser.parse_args()
    uvloop.run(main(arguments.port, rounds_of(arguments.seconds)))
