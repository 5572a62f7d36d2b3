import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError

from app.items import router as items


@asynccontextmanager
async def lifespan(_app: FastAPI) -> AsyncIterator[dict[str, object]]:
    # Where the database is, asyncpg reads from the environment: PGHOST, PGUSER and their like.
    async with asyncpg.create_pool(min_size=0, max_size=4, command_timeout=1.5) as pool:
        yield {"pool": pool}


app = FastAPI(title="Berth", lifespan=lifespan)
app.include_router(items.router)


@app.exception_handler(RequestValidationError)
async def invalid_request(_request: Request, error: RequestValidationError) -> Response:
    """FastAPI's own answer less the input, which may be no valid JSON (NaN, half a surrogate)."""
    detail = [{key: problem[key] for key in ("type", "loc", "msg")} for problem in error.errors()]
    return Response(json.dumps({"detail": detail}), 422, media_type="application/json")
