"""The short way of most requests, `POST .../infer`: without Starlette's routes, requests and responses."""

from __future__ import annotations

import re
from collections.abc import Sequence

from starlette.routing import Route, Router
from starlette.types import Receive, Scope, Send

from smx.runtime.serving import rest
from smx.runtime.serving.cycle import WHOLE
from smx.runtime.serving.service import Service

PATH = re.compile(r"/v2/models/(?P<name>[^/]+)(/versions/(?P<version>[^/]+))?/infer")
LENGTH_HEADER = rest.LENGTH_HEADER.encode()


class Infer:
    """The endpoint, as an ASGI application.

    Args:
        service: what answers.
    """

    def __init__(self, service: Service) -> None:
        self.service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        name, version = scope["path_params"]["name"], scope["path_params"].get("version")
        with self.service.counted(name, "rest"):
            length = _json_length(scope)
            async with self.service.bodies.read(scope, receive) as body:
                asked = rest.read_request(body, length, self.service.limits.max_depth)
                answer, length = rest.write_response(await self.service.infer(name, version, asked), asked)
        headers = [(b"content-length", b"%d" % len(answer))]
        if length is None:
            headers.append((b"content-type", b"application/json"))
        else:
            headers += [(b"content-type", b"application/octet-stream"), (LENGTH_HEADER, b"%d" % length)]
        if WHOLE in scope.get("extensions", ()):
            await send({"type": WHOLE, "status": 200, "headers": headers, "body": answer})
        else:
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body", "body": answer})


class Paths(Router):
    """Starlette's router, which tries one route after the other, and before it the path of `infer`."""

    def __init__(self, routes: Sequence[Route], infer: Infer) -> None:
        super().__init__(routes, redirect_slashes=False)
        self.infer = infer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        found = PATH.fullmatch(scope["path"]) if scope["method"] == "POST" else None
        if found is None:
            await super().__call__(scope, receive, send)
        else:
            scope["path_params"] = found.groupdict()
            await self.infer(scope, receive, send)


def _json_length(scope: Scope) -> int | None:
    """Return the length of the JSON before the tensors' bytes; None where the headers do not say it."""
    given = next((value.decode("latin-1") for name, value in scope["headers"] if name == LENGTH_HEADER), None)
    if given is not None and not rest.is_number(given):
        raise rest.invalid(f"{rest.LENGTH_HEADER} must be a whole number, got {given!r:.50}")
    return None if given is None else int(given)
