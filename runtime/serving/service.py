"""What the server does, whoever asks: REST and gRPC call the same methods."""

from __future__ import annotations

import asyncio
import io
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from smx import __version__
from smx.errors import InputError
from smx.runtime.classes import names_of, probabilities
from smx.runtime.samples import load_samples
from smx.runtime.serving.bodies import Bodies
from smx.runtime.serving.classes import best
from smx.runtime.serving.metrics import Metrics
from smx.runtime.serving.model import Loading, ServedModel
from smx.runtime.serving.protocol import Cause, Gone, InferRequest, InferResponse, Refusal, Tensor
from smx.runtime.serving.repository import Repository, stamp

NAME = "smx"
MAX_PIXELS = 2**24
"""Of an image: decoding takes up to 20 bytes for each."""
EXTENSIONS = ("binary_tensor_data", "classification", "model_repository(index)")


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a client may ask of the server.

    Attributes:
        max_body: bytes of a request's body.
        max_depth: lists and objects in each other, in JSON.
        timeout: seconds until a request must be answered.
        read_timeout: seconds for the headers of a request, and again for its body.
        idle_timeout: seconds that a connection may stay without a request.
        max_connections: open HTTP connections. Above that, those are closed that have been idle for the longest time.
    """

    max_body: int = 16 * 2**20
    max_depth: int = 32
    timeout: float = 30.0
    read_timeout: float = 10.0
    idle_timeout: float = 75.0
    max_connections: int = 1024


class Counted:
    """Counts a request, and how long it takes: a `with` block around it."""

    def __init__(self, metrics: Metrics, model: str, protocol: str) -> None:
        self.metrics, self.model, self.protocol = metrics, model, protocol
        self.start = time.perf_counter()

    def __enter__(self) -> None:
        """Start."""

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        """Count it as answered, or as refused; one whose client is gone as none of them."""
        if error is None:
            self.metrics.answered(self.model, self.protocol, time.perf_counter() - self.start)
        elif isinstance(error, Exception) and not isinstance(error, Gone):
            cause = error.cause if isinstance(error, Refusal) else Cause.INTERNAL
            self.metrics.errors.labels(self.model, self.protocol, cause.value).inc()


class Service:
    """The models and what is counted of them.

    Args:
        source: an ONNX file or a folder of models; see `Repository`.
        loading: how models are loaded.
        limits: what a client may ask.
        report: is called with an event's name and its fields.

    Attributes:
        bodies: holds the bodies of requests, whichever way they come.
        draining: the server ends, so it is not ready any more.
        closed: it ends, and takes no more calls over gRPC.
    """

    def __init__(self, source: Path, loading: Loading, limits: Limits, report: Callable[..., None]) -> None:
        self.loading, self.limits, self.report = loading, limits, report
        self.metrics = Metrics()
        self.bodies = Bodies(limits.max_body, limits.read_timeout)
        self.draining = self.closed = False
        self._decoding = asyncio.Semaphore(1)
        self.repository = Repository(source, self._load, report)

    def _load(self, path: Path, name: str, version: str) -> ServedModel:
        state = stamp(path)
        try:
            model = ServedModel(path, name, version, self.loading, self.metrics.rows.labels(name).observe)
        except InputError:
            self.metrics.loads.labels(name, "refused").inc()
            raise
        model.stamp = state
        self.metrics.loads.labels(name, "loaded").inc()
        self.metrics.load_seconds.labels(name, version).set(model.load_seconds)
        return model

    @property
    def ready(self) -> bool:
        """Whether requests for every model are answered."""
        return self.repository.ready and not self.draining

    def server_metadata(self) -> dict[str, Any]:
        """What the protocol says of a server."""
        return {"name": NAME, "version": __version__, "extensions": EXTENSIONS}

    def model_metadata(self, name: str, version: str | None = None) -> dict[str, Any]:
        """What the protocol says of a model.

        Raises:
            Refusal: there is none.
        """
        model = self.repository.find(name, version)
        return model.metadata | {"versions": self.repository.versions(name)}

    async def infer(
        self, name: str, version: str | None, request: InferRequest, timeout: float | None = None
    ) -> InferResponse:
        """Answer a request.

        Args:
            name, version: of the model; None is its latest version.
            request: what the client asks.
            timeout: seconds that the client waits, if it says.

        Raises:
            Refusal: it is not answered.
        """
        asked = request.parameters.get("timeout", 0)
        if type(asked) is not int or asked < 0:
            raise Refusal(Cause.INVALID, f"the parameter timeout must be whole microseconds, got {asked!r}")
        seconds = min(filter(None, (self.limits.timeout, timeout, asked / 1e6)))
        return await self.repository.find(name, version).infer(request, seconds)

    async def classify(
        self, name: str, version: str | None, image: bytes, *, invert: bool, top_k: int
    ) -> dict[str, Any]:
        """Return class names and probabilities of an image.

        Raises:
            Refusal: the body is no image, or the model does not classify images.
        """
        model = None
        while model is not (model := self.repository.find(name, version)):  # once more, if it is replaced meanwhile
            asked = await self._as_request(model, image, invert)
        answer = await model.infer(asked, self.limits.timeout)
        scores = answer.outputs[0].array
        if scores.ndim != 2 or len(scores) != 1:
            raise Refusal(Cause.INVALID, f"{name} returns no class scores but the shape {list(scores.shape)}")
        try:
            found = probabilities(scores)
        except InputError as error:
            raise Refusal(Cause.INVALID, f"{name} does not classify: {error}") from error
        names = names_of(scores.shape[1], model.class_names)
        classes = [
            {"class": names[index], "index": int(index), "probability": float(found[0, index])}
            for index in best(found, top_k or scores.shape[1])[0]
        ]
        return {"model_name": name, "model_version": model.version, "classes": classes}

    async def _as_request(self, model: ServedModel, image: bytes, invert: bool) -> InferRequest:
        ports = list(model.inputs.values())
        shape = ports[0].shape[1:] if len(ports) == 1 else ()
        if not shape or -1 in shape:
            raise Refusal(Cause.INVALID, f"{model.name} does not take images: it needs one input of fixed sizes")
        if ports[0].dtype.kind != "f" and not model.session.takes_raw:
            raise Refusal(Cause.INVALID, f"{model.name} does not take images: its input is {ports[0].datatype}")
        try:
            x = await self._pixels(image, shape, model, invert)
        except InputError as error:
            raise Refusal(Cause.INVALID, str(error)) from error
        return InferRequest(inputs=[Tensor(ports[0].name, x.astype(ports[0].dtype))])

    async def _pixels(self, image: bytes, shape: Sequence[int], model: ServedModel, invert: bool) -> NDArray[Any]:
        """Decode an image: one after the other, since each may take much memory; in a thread, since it takes long."""
        options: Any = {"invert": invert, "raw": model.session.takes_raw, "max_pixels": MAX_PIXELS}
        try:
            async with asyncio.timeout(self.limits.timeout), self._decoding:
                _, x = await asyncio.to_thread(load_samples, io.BytesIO(image), shape, model.info, **options)
        except TimeoutError as error:
            raise Refusal(Cause.BUSY, "too many images are waiting; try again later") from error
        return x

    def counted(self, name: str, protocol: str) -> Counted:
        """Count what happens in a `with` block as a request; a model's name that is unknown counts as none."""
        known = any(name == each for each, _ in self.repository.entries)
        return Counted(self.metrics, name if known else "", protocol)

    def metrics_text(self) -> bytes:
        """Return all series in Prometheus's text format."""
        waiting = Counter(dict.fromkeys(self.repository.names, 0))
        for model in self.models():
            waiting[model.name] += len(model.batcher.waiting)
        self.metrics.queue.clear()
        for name, requests in waiting.items():
            self.metrics.queue.labels(name).set(requests)
        return self.metrics.text()

    def models(self) -> Sequence[ServedModel]:
        """Return all versions that answer."""
        return [entry.model for entry in self.repository.entries.values() if entry.model is not None]
