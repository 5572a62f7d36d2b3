"""What stands between uvicorn and the app, from the outside in."""

from .asgi import ASGIApp
from .lifecycle import Lifecycle, LifecycleMiddleware
from .limits import LimitsMiddleware, memory_for_bodies
from .metrics import Metrics, MetricsMiddleware
from .outage import OutageMiddleware
from .probes import ProbesMiddleware
from .request_id import RequestIDMiddleware
from .schema import Schema
from .settings import Settings


def wrap(
    app: ASGIApp,
    settings: Settings,
    lifecycle: Lifecycle,
    metrics: Metrics,
    schema: Schema | None = None,
) -> ASGIApp:
    """Return the app with all that Berth promises around it.

    Args:
        app: Any ASGI app.
        settings: Its limits.
        lifecycle: Where this process is between its start and its end.
        metrics: What counts its requests.
        schema: What its database must have before it is ready; None if nothing.
    """
    app = ProbesMiddleware(OutageMiddleware(app), lifecycle, schema, settings)
    app = LimitsMiddleware(
        app,
        max_in_flight=settings.max_in_flight,
        max_body_bytes=settings.max_body_bytes,
        body_memory=memory_for_bodies(settings.api_workers),
    )
    if settings.cors_origins:
        from starlette.middleware.cors import CORSMiddleware

        app = CORSMiddleware(
            app,
            allow_origins=settings.cors_origins.split(),
            allow_methods=["*"],
            allow_headers=["*"],
            expose_headers=["Location", "Retry-After", "X-Request-ID"],
        )
    app = MetricsMiddleware(RequestIDMiddleware(app), metrics)
    return LifecycleMiddleware(app, lifecycle)
