"""The page at `/`: its files, and what it asks beside the protocol: about a model, its neurons, and its file."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Route

from smx.arrays import image_shape
from smx.errors import InputError
from smx.runtime.graph import weight_files
from smx.runtime.serving import rest
from smx.runtime.serving.app import route, which
from smx.runtime.serving.model import ServedModel
from smx.runtime.serving.neurons import Neurons
from smx.runtime.serving.protocol import Cause, Refusal
from smx.runtime.serving.repository import stamp
from smx.runtime.serving.service import Service

WEB = Path(__file__).parent / "web"
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".mjs": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
    ".wasm": "application/wasm",
}
RUNTIME_FILES = ("ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm")
"""What the page needs of onnxruntime-web."""
POLICY = (
    "default-src 'none'; script-src 'self'{wasm}; style-src 'self'; img-src 'self'; connect-src 'self';"
    " base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "cache-control": "no-cache",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}


def page_routes(service: Service, web_runtime: Path | None = None) -> list[Route]:
    """Return the routes of the page.

    Args:
        service: what answers.
        web_runtime: the folder `dist` of the npm package onnxruntime-web; None runs nothing in the browser, and then
            nobody can load the models' files.

    Raises:
        InputError: the folder does not hold what the page needs.
    """
    runtime_files = find_runtime(web_runtime) if web_runtime is not None else {}
    headers = HEADERS | {"content-security-policy": POLICY.format(wasm=" 'wasm-unsafe-eval'" if runtime_files else "")}
    files = {path.name: (path.read_bytes(), TYPES[path.suffix]) for path in WEB.iterdir() if path.suffix in TYPES}
    limits = service.limits
    known: WeakKeyDictionary[ServedModel, Neurons] = WeakKeyDictionary()  # a model that is replaced leaves it

    def neurons_of(model: ServedModel) -> Neurons:
        if model not in known:
            known[model] = Neurons(model)
        return known[model]

    async def index(request: Request) -> Response:
        return Response(files["index.html"][0], 200, headers, files["index.html"][1])

    async def page_file(request: Request) -> Response:
        content, media_type = _named(files, request)
        return Response(content, 200, headers, media_type)

    async def runtime_file(request: Request) -> Response:
        path = _named(runtime_files, request)
        return FileResponse(path, 200, headers | {"cache-control": "private, max-age=3600"}, TYPES[path.suffix])

    async def about(request: Request) -> Response:
        model = service.repository.find(*which(request))
        has_neurons = bool(neurons_of(model).layers)
        content = describe(model) | {
            "versions": service.repository.versions(model.name),
            "neurons": has_neurons,
            "in_browser": bool(runtime_files),
            "live": service.metrics.of_model(model.name) | {"queue": len(model.batcher.waiting)},
        }
        return Response(rest.to_json(content), 200, HEADERS, "application/json")

    async def neurons(request: Request) -> Response:
        name, version = which(request)
        with service.counted(name, "neurons"):
            async with service.bodies.read(request.scope, request.receive) as body:
                asked = rest.read_request(body, None, limits.max_depth)
            model = service.repository.find(name, version)
            layers = await neurons_of(model).read(asked, limits.timeout)
        content = {"model_name": model.name, "model_version": model.version, "layers": [vars(each) for each in layers]}
        return Response(rest.to_json(content), 200, HEADERS, "application/json")

    async def model_file(request: Request) -> Response:
        model = service.repository.find(*which(request))
        content = await asyncio.to_thread(read_file, model)
        return Response(content, 200, HEADERS, "application/octet-stream")

    def both(path: str, endpoint: Callable[..., Any], method: str) -> list[Route]:
        paths = (f"/v2/models/{{name}}{path}", f"/v2/models/{{name}}/versions/{{version}}{path}")
        return [route(each, endpoint, method) for each in paths]

    routes = [route("/", index), route("/page/{file}", page_file)]
    routes += [*both("/about", about, "GET"), *both("/neurons", neurons, "POST")]
    if runtime_files:
        routes += [route("/web-runtime/{file}", runtime_file), *both("/file", model_file, "GET")]
    return routes


def find_runtime(folder: Path) -> dict[str, Path]:
    """Find the files of onnxruntime-web that the page needs.

    Raises:
        InputError: one is missing.
    """
    missing = [name for name in RUNTIME_FILES if not (folder / name).is_file()]
    if missing:
        raise InputError(
            f"{folder} holds no {missing[0]}; --web-runtime is the folder dist of the npm package onnxruntime-web"
        )
    return {name: folder / name for name in RUNTIME_FILES}


def describe(model: ServedModel) -> dict[str, Any]:
    """Return what the page shows of a model."""
    info, session = model.info, model.session
    content: dict[str, Any] = model.metadata | {
        "version": model.version,
        "file": model.path.name,
        "provider": session.provider,
        "settings": session.settings.describe(),
        "load_seconds": model.load_seconds,
        "state": f"{hash(model.stamp) & 2**48 - 1:x}",  # differs when the file was replaced
        "raw": session.takes_raw,
        "picture": picture_size(model),
    }
    names = ("smx_version", "architecture", "layout", "pool", "tolerance", "class_names", "sample_shape", "maximum")
    content |= {name: getattr(info, name, None) for name in (*names, "precision")}
    layers = info.layers if info else ()
    content["layers"] = [{"name": layer.name, "neurons": layer.neurons, "groups": layer.groups} for layer in layers]
    return content


def picture_size(model: ServedModel) -> list[int] | None:
    """Return height and width of the grey image that a classifier takes; None for another model."""
    shape = image_shape(model.info.sample_shape) if model.info else ()
    wanted = model.session.inputs[0].shape[1:] if len(model.session.inputs) == 1 else ()
    scores = model.session.outputs[0].shape
    if len(shape) != 3 or shape[0] != 1 or not all(isinstance(length, int) for length in wanted):
        return None
    if len(scores) != 2 or scores[1] == 1:  # no classes, whose probabilities the page shows
        return None
    return list(shape[1:]) if math.prod(wanted) == math.prod(shape) else None


def read_file(model: ServedModel) -> bytes:
    """Return the bytes of the file that was loaded.

    Raises:
        Refusal: its weights are in another file, or it was replaced and the new one does not answer.
    """
    try:
        if weight_files(model.path):
            raise Refusal(Cause.INVALID, f"the weights of {model.name} are in another file, which is not sent")
        content = model.path.read_bytes()
    except InputError as error:
        raise Refusal(Cause.NOT_FOUND, f"the file of {model.name} is no model any more") from error
    except OSError as error:
        raise Refusal(Cause.NOT_FOUND, f"the file of {model.name} is gone") from error
    if stamp(model.path) != model.stamp:
        raise Refusal(Cause.BUSY, f"the file of {model.name} was replaced, and the new one does not answer yet")
    return content


def _named(files: Mapping[str, Any], request: Request) -> Any:
    name = request.path_params["file"]
    if name not in files:
        raise Refusal(Cause.NOT_FOUND, f"the page has no file {name!r:.50}")
    return files[name]
