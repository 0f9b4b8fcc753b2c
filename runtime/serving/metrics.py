"""What the server counts and measures, for Prometheus."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable
from typing import Any, TypeVar

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
        self._answered: dict[tuple[str, str], tuple[Counter, Histogram]] = {}

    def _make(self, kind: Callable[..., M], name: str, text: str, *labels: str, **options: object) -> M:
        return kind(name, text, labels, registry=self.registry, **options)

    def answered(self, model: str, protocol: str, seconds: float) -> None:
        """Count a request that was answered. Its series are looked up once: that takes longer than counting."""
        found = self._answered.get((model, protocol))
        if found is None:
            found = self.requests.labels(model, protocol), self.seconds.labels(model, protocol)
            self._answered[model, protocol] = found
        requests, times = found
        requests.inc()
        times.observe(seconds)

    def refused(self, protocol: str, cause: str) -> None:
        """Count a request that was refused before it was known to be of a model."""
        self.errors.labels("", protocol, cause).inc()

    def of_model(self, name: str) -> dict[str, Any]:
        """Return what was counted of a model's requests, for the page; what that asks of neurons does not count.

        Returns:
            `requests` and `errors`, their numbers; `seconds`, the sum; `buckets`, pairs of a bound in seconds and how
            many requests took no longer, the last without a bound (None); `runs` and `rows` of the model.
        """
        found: dict[str, float] = defaultdict(float)
        buckets: dict[float, float] = defaultdict(float)
        for series in (self.requests, self.errors, self.seconds, self.rows):
            for sample in next(iter(series.collect())).samples:
                if sample.labels.get("model") != name or sample.labels.get("protocol") == "neurons":
                    continue
                if sample.name == "smx_request_seconds_bucket":
                    buckets[float(sample.labels["le"])] += sample.value
                found[sample.name] += sample.value
        return {
            "requests": int(found["smx_requests_total"]),
            "errors": int(found["smx_errors_total"]),
            "seconds": found["smx_request_seconds_sum"],
            "buckets": [[bound if math.isfinite(bound) else None, int(buckets[bound])] for bound in sorted(buckets)],
            "runs": int(found["smx_batch_rows_count"]),
            "rows": int(found["smx_batch_rows_sum"]),
        }

    def text(self) -> bytes:
        """Return all series in Prometheus's text format."""
        return generate_latest(self.registry)
