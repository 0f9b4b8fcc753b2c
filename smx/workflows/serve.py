"""Serve ONNX files over the Open Inference Protocol. Needs no torch."""

from __future__ import annotations

import resource
from collections.abc import Callable, Coroutine
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from smx.errors import InputError

if TYPE_CHECKING:
    from smx.runtime.serving.model import Loading
    from smx.runtime.serving.server import Address, End
    from smx.runtime.serving.service import Limits

SPARE_FILES = 64
"""Open files that the server needs for itself, beside its connections."""


def serve(
    source: Path | str,
    *,
    address: Address | None = None,
    loading: Loading | None = None,
    limits: Limits | None = None,
    api_key: str | None = None,
    poll: float = 1.0,
    log_requests: bool = False,
    web_runtime: Path | None = None,
    started: Callable[[dict[str, Any]], None] = lambda about: None,
) -> End:
    """Serve until SIGTERM or SIGINT; what was asked before is answered.

    Args:
        source: an ONNX file or a folder of them; see `smx.runtime.serving.repository.Repository`.
        address: host, ports and TLS.
        loading: provider, threads, batching.
        limits: of requests and connections.
        api_key: what clients must send as `Authorization: Bearer KEY`.
        poll: seconds between two looks at the files; replaced ones are loaded anew; 0 never looks.
        log_requests: log answered requests too, not only refused ones.
        web_runtime: the folder `dist` of the npm package onnxruntime-web: the page then runs the model in the
            browser, too.
        started: is called when requests are answered, with `url`, `grpc` (host:port or None) and `models`.

    Returns:
        The signal that ended it, and whether a second one kept requests from being answered.

    Raises:
        InputError: a model can't be loaded, or a setting is wrong.
        SmxError: an address can't be had.
    """
    from smx.runtime.serving import rpc, server
    from smx.runtime.serving.app import make_app
    from smx.runtime.serving.logs import log, log_libraries
    from smx.runtime.serving.model import Loading
    from smx.runtime.serving.page import page_routes
    from smx.runtime.serving.service import Limits, Service

    address, loading, limits = address or server.Address(), loading or Loading(), limits or Limits()
    if not Path(source).exists():
        raise InputError(f"{source} does not exist; expected an ONNX file or a folder of them")
    server.check_tls(address)
    log_libraries()
    ports = 1 if address.grpc_port is None else 2
    possible = (raise_file_limit(ports * limits.max_connections + SPARE_FILES) - SPARE_FILES) // ports
    if possible < limits.max_connections:
        log("limited", connections=max(possible, 1), reason="this process may not open more files")
        limits = replace(limits, max_connections=max(possible, 1))
    bound = server.bind(address.host, address.port)
    service = Service(Path(source), loading, limits, log)
    routes = page_routes(service, web_runtime)
    app = make_app(service, api_key=api_key, log=log, log_all=log_requests, routes=routes)
    tls = (address.tls_cert, address.tls_key) if address.tls_cert and address.tls_key else None
    host = f"[{address.host}]" if ":" in address.host else address.host
    about = {
        "url": f"{'https' if tls else 'http'}://{host}:{bound.getsockname()[1]}",
        "grpc": None,
        "models": service.repository.names,
    }

    async def start_grpc() -> Coroutine[Any, Any, None]:
        made, port = rpc.make_server(
            service, f"{host}:{address.grpc_port}", api_key=api_key, tls=tls, log=log, log_all=log_requests
        )
        await made.start()
        about["grpc"] = f"{host}:{port}"
        return rpc.serve(made, service, limits.timeout)

    return server.run(
        service,
        app,
        address,
        bound,
        background=[start_grpc] if address.grpc_port is not None else [],
        started=lambda: started(about),
        poll=poll,
    )


def raise_file_limit(wanted: int) -> int:
    """Let this process open as many files, as far as the system allows it; return how many it may open then."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return wanted if soft == resource.RLIM_INFINITY else soft
