from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError

from app import errors
from app.database import DatabaseUnavailableError, open_database
from app.docs import add_docs
from app.items.endpoints import add_items
from app.settings import Settings


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, object]]:
    async with open_database(app.state.settings) as database:
        yield {"database": database}


def create_app() -> FastAPI:
    app = FastAPI(
        title="Berth",
        lifespan=lifespan,
        responses=errors.RESPONSES,
        docs_url=None,
        redoc_url=None,
    )
    app.state.settings = Settings()
    app.add_exception_handler(DatabaseUnavailableError, errors.database_unavailable)
    app.add_exception_handler(RequestValidationError, errors.invalid_request)
    add_items(app)
    add_docs(app)
    return app


app = create_app()
