from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError

from app import errors, health
from app.database import DatabaseUnavailableError, open_database
from app.items import endpoints as items
from app.lifecycle import Lifecycle
from app.schema import Schema
from app.settings import Settings


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, object]]:
    async with open_database(app.state.settings) as database:
        yield {"database": database, "schema": Schema(database)}


def create_app(settings: Settings | None = None) -> FastAPI:
    settings = settings or Settings()
    app = FastAPI(title="Berth", version=settings.app_version, lifespan=lifespan)
    app.state.settings = settings
    app.state.lifecycle = Lifecycle()
    app.add_exception_handler(DatabaseUnavailableError, errors.database_unavailable)
    app.add_exception_handler(RequestValidationError, errors.invalid_request)
    app.include_router(health.router)
    app.include_router(items.router)
    return app
