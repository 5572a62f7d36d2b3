"""What Prometheus reads of this replica, on a port of its own to which Traefik never routes.

Names, labels and units are OpenTelemetry's. Health checks are not counted: they are no work, and
their 503 while draining is no error. Several processes of one container (API_WORKERS) write to
files which whichever of them is asked adds up.
"""

import logging
import os
import socket
import threading
from collections import deque
from collections.abc import Awaitable, Iterable
from functools import partial
from pathlib import Path
from tempfile import mkdtemp
from time import perf_counter
from wsgiref.simple_server import WSGIRequestHandler, make_server

from prometheus_client import (
    REGISTRY,
    CollectorRegistry,
    Gauge,
    Histogram,
    Metric,
    make_wsgi_app,
    multiprocess,
    values,
)
from prometheus_client.exposition import ThreadingWSGIServer

from .asgi import ASGIApp, Message, Receive, Scope, Send
from .probes import PATHS
from .settings import Settings

logger = logging.getLogger(__name__)

BUCKETS = (0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10)
# What a client makes up must not become a label.
METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}
# How far back the doctor looks, who need not have a Prometheus that remembers.
RECENT_SECONDS = 120


class Metrics:
    """Counts and times requests."""

    def __init__(self, settings: Settings) -> None:
        # A registry of its own, since the app's may have metrics of the same names.
        own = CollectorRegistry()
        self.active = 0
        self._host, self._port = settings.host, settings.metrics_port
        self.exposed = _shared() if settings.api_workers > 1 else _with_apps(own)
        self._durations = Histogram(
            "http_server_request_duration_seconds",
            "From a request's arrival to the end of its answer",
            ["http_request_method", "http_route", "http_response_status_code"],
            buckets=BUCKETS,
            registry=own,
        )
        # Found by the values of their labels: the library's own way there costs more than counting.
        self._series: dict[tuple[str, str, int], Histogram] = {}

        def gauge(name: str, help_text: str) -> Gauge:
            return Gauge(name, help_text, multiprocess_mode="livesum", registry=own)

        self._processes = gauge("http_server_processes", "Processes that serve")
        self._active = gauge("http_server_active_requests", "Requests that are not yet answered")
        self._recent = gauge("http_server_recent_requests", "Requests of the last two minutes")
        self._recent_5xx = gauge("http_server_recent_failures", "Those that were answered by a 5xx")
        # How many there had been by then: requests and failures, of each of the last seconds.
        self._counts = [0, 0]
        self._past = deque([(0, 0)], maxlen=RECENT_SECONDS)
        Gauge(
            "app_info",
            "What this replica runs",
            ["version", "replica"],
            multiprocess_mode="max",
            registry=own,
        ).labels(settings.app_version, socket.gethostname()).set(1)

    def observe(self, scope: Scope, status: int, seconds: float) -> None:
        """Count an answered request under its route's template, never its path."""
        # A router that was included with a prefix keeps the whole template there.
        route = scope.get("fastapi", {}).get("effective_route_context") or scope.get("route")
        template = str(getattr(route, "path_format", None) or getattr(route, "path", "unmatched"))
        key = (scope["method"], template, status)
        series = self._series.get(key)
        if series is None:
            method = key[0] if key[0] in METHODS else "_OTHER"
            series = self._durations.labels(method, template, status)
            if method == key[0]:
                self._series[key] = series
        series.observe(seconds)
        self._counts[0] += 1
        self._counts[1] += status >= 500

    def sample(self) -> None:
        """Take down what changes all the while; to be called about every second."""
        self._active.set(self.active)
        self._processes.set(1)
        requests, failures = self._counts
        before, failures_before = self._past[0]
        self._recent.set(requests - before)
        self._recent_5xx.set(failures - failures_before)
        self._past.append((requests, failures))

    def serve(self) -> None:
        """Answer scrapes, from a thread: also while the event loop is blocked."""
        answer = make_wsgi_app(self.exposed)
        try:
            server = make_server(self._host, self._port, answer, _Server, handler_class=_Silent)
        except OSError as error:
            logger.warning("no metrics on port %d: %s", self._port, error)
            return
        # It ends with the process; until then there is nothing that it need look for.
        serve = partial(server.serve_forever, poll_interval=3600)
        threading.Thread(target=serve, name="metrics", daemon=True).start()


class MetricsMiddleware:
    """Reports every request to Metrics."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self.app = app
        self.metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in PATHS:
            await self.app(scope, receive, send)
            return
        metrics = self.metrics
        status = 500  # of what fails before it answers
        began = perf_counter()

        # No coroutine of its own, which each part of an answer would have to pass through.
        def send_noting(message: Message) -> Awaitable[None]:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            return send(message)

        metrics.active += 1
        try:
            await self.app(scope, receive, send_noting)
        finally:
            metrics.active -= 1
            metrics.observe(scope, status, perf_counter() - began)


class _Both:
    """Berth's metrics and the app's own, which are in the library's usual registry.

    That one tells of the process, too.
    """

    def __init__(self, own: CollectorRegistry) -> None:
        self._own = own

    def collect(self) -> Iterable[Metric]:
        """Yield every metric; of two with one name, Berth's."""
        names = set()
        for metric in (*self._own.collect(), *REGISTRY.collect()):
            if metric.name not in names:
                names.add(metric.name)
                yield metric


def _with_apps(own: CollectorRegistry) -> CollectorRegistry:
    registry = CollectorRegistry()
    registry.register(_Both(own))
    return registry


def _shared() -> CollectorRegistry:
    """Have metrics kept in files, and return what adds up those of all processes."""
    # What the library does by itself where the variable is set before it is imported.
    folder = os.environ.setdefault("PROMETHEUS_MULTIPROC_DIR", mkdtemp(prefix="metrics-"))
    values.ValueClass = values.MultiProcessValue()  # type: ignore[no-untyped-call]
    registry = CollectorRegistry()
    _Living(registry, folder)
    return registry


class _Living(multiprocess.MultiProcessCollector):
    """Leaves out the gauges of processes that are gone; what those counted stays."""

    def __init__(self, registry: CollectorRegistry, folder: str) -> None:
        self._folder = Path(folder)
        super().__init__(registry, folder)  # type: ignore[no-untyped-call]

    def collect(self) -> Iterable[Metric]:
        for file in self._folder.glob("gauge_live*_*.db"):
            process = file.stem.rpartition("_")[2]
            if not Path("/proc", process).exists():
                file.unlink(missing_ok=True)
        metrics: Iterable[Metric] = super().collect()  # type: ignore[no-untyped-call]
        return metrics


class _Server(ThreadingWSGIServer):
    # Each process of a container listens; the kernel picks one that does.
    allow_reuse_port = True


class _Silent(WSGIRequestHandler):
    timeout = 5

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Log nothing."""
