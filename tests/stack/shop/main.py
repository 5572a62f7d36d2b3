"""An app with a queue, that knows nothing of Berth."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from arq import create_pool
from fastapi import FastAPI
from worker import VALKEY


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    app.state.queue = await create_pool(VALKEY)
    yield
    await app.state.queue.aclose()


app = FastAPI(lifespan=lifespan)


@app.post("/tasks")
async def enqueue(first: int, count: int) -> None:
    for number in range(first, first + count):
        await app.state.queue.enqueue_job("work", number)
