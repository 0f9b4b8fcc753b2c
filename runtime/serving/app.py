"""The HTTP side: the protocol's REST endpoints, an endpoint for images, metrics, and the page's files."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from smx.runtime.serving import rest
from smx.runtime.serving.infer import Infer, Paths
from smx.runtime.serving.logs import Ids
from smx.runtime.serving.metrics import CONTENT_TYPE
from smx.runtime.serving.protocol import Cause, Gone, Refusal, check_key
from smx.runtime.serving.service import Service

OPEN_PATHS = ("/v2/health/live", "/v2/health/ready")
"""These need no key: probes ask for them."""
OPEN_FOLDERS = ("/page/", "/web-runtime/")
"""Nor do the page's files: it is the page that asks for the key."""
ID_HEADER = b"x-request-id"
CAUSES = {404: Cause.NOT_FOUND, 405: Cause.METHOD}


class Front:
    """What happens to every request: its id, its key, its log line, and errors in the protocol's shape.

    Args:
        app: what answers.
        service: for its state.
        api_key: what clients must send as `Authorization: Bearer KEY`; None lets everybody in.
        log: is called with an event's name and its fields, for refused requests.
        log_all: log answered requests, too.
    """

    def __init__(
        self, app: ASGIApp, service: Service, api_key: str | None, log: Callable[..., None], log_all: bool
    ) -> None:
        self.app, self.service, self.log, self.log_all = app, service, log, log_all
        self.api_key = api_key.encode() if api_key else None
        self.ids = Ids()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return
        start, headers = time.perf_counter(), dict(scope["headers"])
        request_id = self.ids.of(headers.get(ID_HEADER, b"").decode("latin-1"))
        status = 0

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if "status" in message:
                status = message["status"]
                message["headers"] = [*message["headers"], (ID_HEADER, request_id.encode())]
            await send(message)

        scope["app"] = self  # Starlette raises what it refuses only then
        error: str | None = None
        try:
            if self.api_key is not None and not _is_open(scope["path"]):
                given = headers.get(b"authorization", b"").decode("latin-1")
                check_key(given, self.api_key, "the header Authorization")
            await self.app(scope, receive, send_with_id)
        except Gone:
            error = "the client is gone"
        except Exception as raised:
            refusal, error = self._as_refusal(raised), str(raised)
            if refusal.cause is Cause.UNAUTHENTICATED or isinstance(raised, HTTPException):  # nobody else counts it
                self.service.metrics.refused("rest", refusal.cause.value)
            if status == 0:
                allowed = raised.headers if isinstance(raised, HTTPException) else None
                await _error(refusal, allowed)(scope, receive, send_with_id)
        if error or self.log_all:
            took = round((time.perf_counter() - start) * 1e3, 2)
            what = {"method": scope["method"], "path": scope["path"][:200], "status": status, "ms": took}
            self.log("request", id=request_id, **what, **({"error": error[:500]} if error else {}))

    def _as_refusal(self, error: Exception) -> Refusal:
        if isinstance(error, Refusal):
            return error
        if isinstance(error, HTTPException):
            return Refusal(CAUSES.get(error.status_code, Cause.INVALID), error.detail)
        self.log("failed", error=f"{type(error).__name__}: {error}")
        return Refusal(Cause.INTERNAL, "the server failed to answer this request; its log says why")


def _is_open(path: str) -> bool:
    return path == "/" or path in OPEN_PATHS or path.startswith(OPEN_FOLDERS)


def _error(refusal: Refusal, further: Mapping[str, str] | None = None) -> Response:
    headers = dict(further or {})
    if refusal.cause is Cause.SLOW:  # and so may be what comes next
        headers["connection"] = "close"
    if refusal.cause is Cause.BUSY:
        headers["retry-after"] = "1"
    if refusal.cause is Cause.UNAUTHENTICATED:
        headers["www-authenticate"] = "Bearer"
    return _json({"error": str(refusal)}, rest.STATUS[refusal.cause], headers)


def _json(content: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(rest.to_json(content), status, headers, "application/json")


class Endpoint:
    """A function from a request to a response, as an ASGI application: `Front` handles what it raises.

    Starlette's own wrapping of a function handles that, too, and takes a tenth of the time of a request.
    """

    def __init__(self, answer: Callable[[Request], Awaitable[Response]]) -> None:
        self.answer = answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        response = await self.answer(Request(scope, receive, send))
        await response(scope, receive, send)


def route(path: str, answer: Callable[[Request], Awaitable[Response]], method: str = "GET") -> Route:
    """Return the route of an endpoint."""
    return Route(path, Endpoint(answer), methods=[method])


def make_app(
    service: Service, *, api_key: str | None, log: Callable[..., None], log_all: bool = False, routes: list[Route]
) -> ASGIApp:
    """Return the ASGI application.

    Args:
        service: what answers.
        api_key: see `Front`.
        log, log_all: see `Front`.
        routes: further ones, as of the page.
    """
    infer = Infer(service)

    async def live(request: Request) -> Response:
        return _json({"live": True})

    async def ready(request: Request) -> Response:
        return _json({"ready": service.ready}, 200 if service.ready else 503)

    async def server_metadata(request: Request) -> Response:
        return _json(service.server_metadata())

    async def model_metadata(request: Request) -> Response:
        return _json(service.model_metadata(*which(request)))

    async def model_ready(request: Request) -> Response:
        model = service.repository.find(*which(request))
        return _json({"name": model.name, "ready": True})

    async def index(request: Request) -> Response:
        async with service.bodies.read(request.scope, request.receive) as body:
            asked = rest.parse(body or b"{}", service.limits.max_depth)
        if not isinstance(ready := asked.get("ready", False), bool):
            raise rest.invalid(f"ready must be true or false, got {ready!r:.50}")
        return _json(service.repository.index(ready))

    async def metrics(request: Request) -> Response:
        return Response(service.metrics_text(), media_type=CONTENT_TYPE)

    async def classify(request: Request) -> Response:
        name, version = which(request)
        with service.counted(name, "image"):
            invert = request.query_params.get("invert", "false").lower()
            top_k = request.query_params.get("top_k", "0")
            if invert not in ("true", "false", "1", "0") or not rest.is_number(top_k):
                raise rest.invalid("invert must be true or false, top_k a whole number")
            async with service.bodies.read(request.scope, request.receive) as body:
                answer = await service.classify(name, version, body, invert=invert in ("true", "1"), top_k=int(top_k))
        return _json(answer)

    model, versioned = "/v2/models/{name}", "/v2/models/{name}/versions/{version}"
    found = [
        *(Route(f"{path}/infer", infer, methods=["POST"]) for path in (model, versioned)),
        *(route(f"{path}/classify", classify, "POST") for path in (model, versioned)),
        *(route(f"{path}/ready", model_ready) for path in (model, versioned)),
        *(route(path, model_metadata) for path in (model, versioned)),
        *(route(path, server_metadata) for path in ("/v2", "/v2/")),
        route("/v2/health/live", live),
        route("/v2/health/ready", ready),
        route("/v2/repository/index", index, "POST"),
        route("/metrics", metrics),
        *routes,
    ]
    return Front(Paths(found, infer), service, api_key, log, log_all)


def which(request: Request) -> tuple[str, str | None]:
    """Return the name and version of the model in a request's path."""
    return request.path_params["name"], request.path_params.get("version")
