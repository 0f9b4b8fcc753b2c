"""A running server: sockets, signals, and an end that answers what was asked before."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import ssl
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvicorn
import uvloop
from starlette.types import ASGIApp

from smx.errors import InputError, SmxError
from smx.runtime.serving.connections import limited
from smx.runtime.serving.service import Service

LINGER = 0.5
"""Seconds at the end that open connections get to send a request that is on its way."""


@dataclass(frozen=True, kw_only=True)
class Address:
    """Where the server listens.

    Attributes:
        host, port: of HTTP; port 0 takes a free one.
        grpc_port: of gRPC on the same host; None is no gRPC.
        tls_cert, tls_key: PEM files; with them both ports speak TLS.
    """

    host: str = "127.0.0.1"
    port: int = 8080
    grpc_port: int | None = None
    tls_cert: Path | None = None
    tls_key: Path | None = None


def bind(host: str, port: int) -> socket.socket:
    """Return a socket that does not listen yet.

    Raises:
        SmxError: the address is in use, or none of this machine.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        bound = socket.socket(family, kind, protocol)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
    except (OSError, UnicodeError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise SmxError(f"can't listen on {host} port {port}: {reason}; choose others with --host and --port") from error
    return bound


def check_tls(address: Address) -> None:
    """Check the certificate before anything is loaded.

    Raises:
        InputError: one file of the two is missing or none, or they do not belong together.
    """
    if (address.tls_cert is None) != (address.tls_key is None):
        raise InputError("TLS needs both a certificate and its key: give --tls-cert and --tls-key")
    if address.tls_cert is not None and address.tls_key is not None:
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(address.tls_cert, address.tls_key)
        except OSError as error:  # ssl.SSLError is one
            raise InputError(f"{address.tls_cert} and {address.tls_key} are no certificate and key: {error}") from error


class Server(uvicorn.Server):
    """uvicorn, with signals that end it gently.

    Args:
        app: the application.
        service: becomes `draining` at the end.
        address: see `Address`.
        idle_timeout, read_timeout, max_connections: see `smx.runtime.serving.service.Limits`.

    Attributes:
        signal: what ended it.
    """

    def __init__(self, app: ASGIApp, service: Service, address: Address) -> None:
        limits = service.limits
        super().__init__(
            uvicorn.Config(
                app,
                http=limited(limits.read_timeout, limits.max_connections),
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                proxy_headers=False,
                server_header=False,
                timeout_keep_alive=int(limits.idle_timeout),
                timeout_graceful_shutdown=int(limits.timeout) + 1,
                ssl_certfile=address.tls_cert,
                ssl_keyfile=address.tls_key,
            )
        )
        self.service = service
        self.signal: signal.Signals | None = None

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """End on SIGTERM and SIGINT; a second one does not wait."""
        loop = asyncio.get_running_loop()
        for each in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(each, self._stop, each)
        yield

    def _stop(self, received: signal.Signals) -> None:
        self.force_exit = self.should_exit
        self.should_exit = True
        self.signal = self.signal or received

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen no more, answer what is asked on open connections and close each with its answer; then end."""
        for server in self.servers:
            server.close()
        self.service.draining = True
        waited = 0.0
        while self.server_state.connections and waited < LINGER and not self.force_exit:
            await asyncio.sleep(0.05)
            waited += 0.05
        await super().shutdown(sockets)


def run(
    service: Service,
    app: ASGIApp,
    address: Address,
    bound: socket.socket,
    *,
    background: list[Callable[[], Awaitable[Coroutine[Any, Any, None]]]],
    started: Callable[[], None],
    poll: float,
) -> signal.Signals | None:
    """Serve until a signal comes; return it.

    Args:
        service, app, address: see `Server`.
        bound: the socket of HTTP.
        background: each is awaited first, and returns what runs beside HTTP until the end, when it is cancelled.
        started: is called when requests are answered.
        poll: seconds between two looks at the models' files; 0 never looks.
    """
    server = Server(app, service, address)

    async def main() -> None:
        tasks = [asyncio.create_task(await each()) for each in background]
        if poll:
            tasks.append(asyncio.create_task(service.repository.watch(poll)))
        watcher = asyncio.create_task(_when_started(server, started))
        try:
            await server.serve(sockets=[bound])
        finally:
            for task in (*tasks, watcher):
                task.cancel()
            await asyncio.gather(*tasks, watcher, return_exceptions=True)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())
    return server.signal


async def _when_started(server: Server, started: Callable[[], None]) -> None:
    while not server.started:
        await asyncio.sleep(0.01)
    started()
