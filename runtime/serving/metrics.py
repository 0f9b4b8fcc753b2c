"""What the server counts and measures, for Prometheus."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST as CONTENT_TYPE

M = TypeVar("M")

__all__ = ["CONTENT_TYPE", "Metrics"]

SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)
ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 4096)


class Metrics:
    """The series of one server, in a registry of its own.

    Labels hold names of models that are served and a few fixed words, never what a client sends, so that no client can
    make series.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = self._make(Counter, "smx_requests", "Requests that were answered", "model", "protocol")
        self.errors = self._make(Counter, "smx_errors", "Requests that were refused", "model", "protocol", "cause")
        self.seconds = self._make(
            Histogram,
            "smx_request_seconds",
            "Seconds from a request to its answer",
            "model",
            "protocol",
            buckets=SECONDS,
        )
        self.rows = self._make(Histogram, "smx_batch_rows", "Examples of a run of the model", "model", buckets=ROWS)
        self.queue = self._make(Gauge, "smx_queue_requests", "Requests that wait for a run", "model")
        self.loads = self._make(Counter, "smx_model_loads", "Tries to load a model", "model", "outcome")
        self.load_seconds = self._make(Gauge, "smx_model_load_seconds", "Seconds that loading took", "model", "version")
        self.connections = Gauge("smx_connections", "Open HTTP connections", registry=self.registry)

    def _make(self, kind: Callable[..., M], name: str, text: str, *labels: str, **options: object) -> M:
        return kind(name, text, labels, registry=self.registry, **options)

    def text(self) -> bytes:
        """Return all series in Prometheus's text format."""
        return generate_latest(self.registry)
