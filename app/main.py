from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp

from app import errors, health
from app.database import DatabaseUnavailableError, open_database
from app.docs import add_docs
from app.envelope import Envelope
from app.items.endpoints import add_items
from app.lifecycle import CHECKS, Lifecycle
from app.limits import LimitsMiddleware, memory_for_bodies
from app.metrics import Measured, Metrics
from app.schema import Schema
from app.settings import Settings


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, object]]:
    async with (
        open_database(app.state.settings) as database,
        app.state.metrics.served(database),
    ):
        yield {"database": database, "schema": Schema(database)}


class App(FastAPI):
    """FastAPI within limits; what they refuse and what fails is in an envelope, and counted too."""

    def build_middleware_stack(self) -> ASGIApp:
        settings: Settings = self.state.settings
        limited = LimitsMiddleware(
            super().build_middleware_stack(),
            max_in_flight=settings.max_in_flight,
            max_body_bytes=settings.max_body_bytes,
            body_memory=memory_for_bodies(settings.api_workers),
            checks=CHECKS,
        )
        return Measured(Envelope(limited), self.state.metrics)


def create_app(settings: Settings | None = None) -> FastAPI:
    settings = settings or Settings()
    app = App(
        title="Berth",
        version=settings.app_version,
        lifespan=lifespan,
        responses=errors.RESPONSES,
        docs_url=None,
        redoc_url=None,
    )
    app.state.settings = settings
    app.state.lifecycle = Lifecycle()
    app.state.metrics = Metrics(settings)
    app.add_exception_handler(DatabaseUnavailableError, errors.database_unavailable)
    app.add_exception_handler(RequestValidationError, errors.invalid_request)
    app.add_exception_handler(Exception, errors.unexpected)
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins.split(),
            allow_methods=["*"],
            allow_headers=["*"],
            expose_headers=["Location", "Retry-After", "X-Request-ID"],
        )
    add_items(app)
    app.include_router(health.router)
    add_docs(app)
    return app
