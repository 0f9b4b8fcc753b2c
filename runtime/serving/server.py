"""A running server: sockets, signals, and an end that answers what was asked before."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import math
import signal
import socket
import ssl
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import uvicorn
import uvloop
from starlette.types import ASGIApp

from smx.errors import InputError, SmxError
from smx.runtime.serving.connections import GuardedProtocol, protocol_class
from smx.runtime.serving.crowd import Crowd
from smx.runtime.serving.listener import Listener
from smx.runtime.serving.service import Service

COLLECT_AFTER = 50_000
"""Objects more than there were, until the next look for garbage."""
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


def check_tls(address: Address) -> ssl.SSLContext | None:
    """Return what TLS needs; None where the server speaks none.

    Raises:
        InputError: one file of the two is missing or none, or they do not belong together.
    """
    if (address.tls_cert is None) != (address.tls_key is None):
        raise InputError("TLS needs both a certificate and its key: give --tls-cert and --tls-key")
    if address.tls_cert is None or address.tls_key is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(address.tls_cert, address.tls_key)
    except OSError as error:  # ssl.SSLError is one
        raise InputError(f"{address.tls_cert} and {address.tls_key} are no certificate and key: {error}") from error
    return context


class End(NamedTuple):
    """How a server ended.

    Attributes:
        signal: what ended it; None if none did.
        forced: a second signal came before everything was answered.
    """

    signal: signal.Signals | None
    forced: bool


class Server(uvicorn.Server):
    """uvicorn, with signals that end it gently.

    Args:
        app: the application.
        service: becomes `draining` at the end.
        address: see `Address`.

    Attributes:
        beside: what runs until the end, and ends when it is cancelled, as the gRPC server.
        signal: what ended it.
    """

    def __init__(self, app: ASGIApp, service: Service, address: Address) -> None:
        limits = service.limits
        self.service = service
        self.crowd = Crowd(limits.max_connections)
        self.protocol = protocol_class(
            self.crowd, limits.read_timeout, limits.idle_timeout, lambda: service.draining, service.report
        )
        self.tls = check_tls(address)
        super().__init__(
            uvicorn.Config(
                app,
                http=self.protocol,
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                proxy_headers=False,
                server_header=False,
                timeout_graceful_shutdown=math.ceil(limits.read_timeout + limits.timeout) + 1,
            )
        )
        service.metrics.connections.set_function(lambda: len(self.crowd.members))
        self.beside: list[asyncio.Task[None]] = []
        self.signal: signal.Signals | None = None

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """End on SIGTERM and SIGINT; a second one does not wait."""
        if threading.current_thread() is threading.main_thread():  # others get no signals
            loop = asyncio.get_running_loop()
            for each in (signal.SIGTERM, signal.SIGINT):
                loop.add_signal_handler(each, self._stop, each)
        yield

    def _stop(self, received: signal.Signals) -> None:
        self.force_exit = self.should_exit
        self.should_exit = True
        self.signal = self.signal or received

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen."""
        loop = asyncio.get_running_loop()

        def connection() -> GuardedProtocol:
            return self.protocol(config=self.config, server_state=self.server_state, app_state={}, _loop=loop)

        self.listener = Listener(sockets or [], connection, self.crowd, self.tls, self.service.limits.read_timeout)
        self.servers = []
        self.started = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen no more, answer what is asked on open connections and close each with its answer; then end.

        gRPC does the same meanwhile.
        """
        self.service.draining = True
        self.listener.close()
        for task in self.beside:
            task.cancel()
        for connection in self.server_state.connections:
            assert isinstance(connection, GuardedProtocol)
            connection.drain()
        waited = 0.0
        while (self.server_state.connections or self.listener.greeting) and waited < LINGER and not self.force_exit:
            await asyncio.sleep(0.05)
            waited += 0.05
        await super().shutdown(sockets)
        while not (self.force_exit or all(task.done() for task in self.beside)):
            await asyncio.sleep(0.05)


def run(
    service: Service,
    app: ASGIApp,
    address: Address,
    bound: socket.socket,
    *,
    background: list[Callable[[], Awaitable[Coroutine[Any, Any, None]]]],
    started: Callable[[], None],
    poll: float,
) -> End:
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
        server.beside = [asyncio.create_task(await each()) for each in background]
        if poll:
            server.beside.append(asyncio.create_task(service.repository.watch(poll)))
        watcher = asyncio.create_task(_when_started(server, started))
        try:
            await server.serve(sockets=[bound])
        finally:
            tasks = (*server.beside, watcher)
            for task in tasks:
                task.cancel()
            if not server.force_exit:
                await asyncio.gather(*tasks, return_exceptions=True)

    runner = asyncio.Runner(loop_factory=uvloop.new_event_loop)
    try:
        with rare_collections():
            runner.run(main())
    finally:
        if not server.force_exit:  # waits for threads, as of a model that is loading
            runner.close()
    return End(server.signal, server.force_exit)


@contextlib.contextmanager
def rare_collections() -> Iterator[None]:
    """Look for garbage in cycles rarely, and not among what is loaded: a quarter of the time of a request otherwise."""
    before = gc.get_threshold()
    gc.collect()
    gc.freeze()
    gc.set_threshold(COLLECT_AFTER, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()


async def _when_started(server: Server, started: Callable[[], None]) -> None:
    while not server.started:
        await asyncio.sleep(0.01)
    started()
