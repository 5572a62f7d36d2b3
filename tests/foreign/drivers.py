"""An app that knows nothing of Berth and talks to the database in the ways that apps do."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
from fastapi import FastAPI
from sqlalchemy import create_engine, make_url, text
from sqlalchemy.ext.asyncio import create_async_engine
from starlette.middleware.trustedhost import TrustedHostMiddleware

URL = make_url(os.environ["DATABASE_URL"])
in_threads = create_engine(URL.set(drivername="postgresql+psycopg"), pool_size=2)
on_loop = create_async_engine(URL.set(drivername="postgresql+asyncpg"), pool_size=2)


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    pool = asyncpg.create_pool(min_size=0, max_size=2, timeout=1, command_timeout=1)
    async with pool as app.state.pool:
        yield


app = FastAPI(lifespan=lifespan)
app.add_middleware(TrustedHostMiddleware, allowed_hosts=["shop.example"])


@app.get("/asyncpg")
async def by_asyncpg() -> int:
    return int(await app.state.pool.fetchval("SELECT 1"))


@app.get("/sqlalchemy-async")
async def by_sqlalchemy() -> int:
    async with on_loop.connect() as connection:
        return int(await connection.scalar(text("SELECT 1")) or 0)


@app.get("/sqlalchemy-psycopg")
def by_psycopg() -> int:
    with in_threads.connect() as connection:
        return int(connection.scalar(text("SELECT 1")) or 0)


@app.get("/misuse")
async def misuse() -> None:
    await app.state.pool.fetchval("SELECT $1::int", 1, 2)


@app.get("/environment/{name}")
async def environment(name: str) -> str | None:
    return os.environ.get(name)
