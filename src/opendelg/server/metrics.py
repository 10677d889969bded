"""What the service tells Prometheus."""

import time
from collections.abc import Mapping

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)
from starlette.types import ASGIApp, Message, Receive, Scope, Send

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_BATCHES = (1, 2, 4, 8, 16, 32)


class Metrics:
    """Counters of one app, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        self.requests = Counter(
            "delg_requests", "Requests answered.", ["method", "route", "status"], registry=registry
        )
        self.seconds = Histogram(
            "delg_request_seconds",
            "Time to answer.",
            ["route"],
            registry=registry,
            buckets=_SECONDS,
        )
        self.running = Gauge("delg_requests_running", "Requests in the house.", registry=registry)
        self.stages = Histogram(
            "delg_search_stage_seconds",
            "Time of each stage of a search; extract includes waiting for the network.",
            ["stage"],
            registry=registry,
            buckets=_SECONDS,
        )
        self.batches = Histogram(
            "delg_network_batch_images",
            "Photos that the network took at a time.",
            registry=registry,
            buckets=_BATCHES,
        )
        self.images = Gauge("delg_collection_images", "Images indexed.", registry=registry)
        self.cached = Gauge(
            "delg_query_cache_bytes", "Memory of the last queries.", registry=registry
        )

    def observe_search(self, seconds: Mapping[str, float]) -> None:
        """Note how long the stages of a search took."""
        for stage, value in seconds.items():
            self.stages.labels(stage).observe(value)

    def text(self) -> bytes:
        """All of them in Prometheus' text format."""
        return generate_latest(self.registry)


class Measured:
    """Counts and times every request; routes are named by their pattern, so they stay few."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, status = time.perf_counter(), 500

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        with self._metrics.running.track_inprogress():
            try:
                await self._app(scope, receive, watched)
            finally:
                route = getattr(scope.get("route"), "path", "other")
                method = scope["method"] if scope["method"] in _METHODS else "other"
                self._metrics.requests.labels(method, route, status).inc()
                self._metrics.seconds.labels(route).observe(time.perf_counter() - started)


_METHODS = {"GET", "HEAD", "POST", "DELETE", "OPTIONS", "PUT", "PATCH"}
