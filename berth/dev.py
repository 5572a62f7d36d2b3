"""The app for uvicorn's `--reload`, with all that Berth has around it: `make dev`.

uvicorn --factory berth.dev:create_app --reload
"""

from . import environment, logs
from .asgi import ASGIApp
from .importing import load_app
from .lifecycle import Lifecycle
from .metrics import Metrics
from .schema import required
from .settings import load_settings
from .wrap import wrap


def create_app() -> ASGIApp:
    """Return the app; what keeps that from working is said, and mended by the next save."""
    settings = load_settings()
    logs.configure(settings.log_level, settings.log_format)
    environment.prepare(settings)
    metrics = Metrics(settings)
    metrics.serve()
    return wrap(load_app(settings), settings, Lifecycle(), metrics, required(settings))
