"""The server with a few endpoints that take their time."""

import asyncio
import os
import time
from collections.abc import AsyncIterator

from fastapi import FastAPI, WebSocket
from fastapi.responses import StreamingResponse

from app import server, workers
from app.main import create_app
from app.settings import Settings


def create_slow_app(settings: Settings) -> FastAPI:
    app = create_app(settings)

    @app.get("/sleep/{seconds}")
    async def sleep(seconds: float) -> float:
        await asyncio.sleep(seconds)
        return seconds

    @app.get("/stream/{seconds}")
    async def stream(seconds: float) -> StreamingResponse:
        async def parts() -> AsyncIterator[str]:
            for part in range(10):
                yield f"{part}"
                await asyncio.sleep(seconds / 10)

        return StreamingResponse(parts())

    @app.get("/busy/{seconds}")
    async def busy(seconds: float) -> int:
        time.sleep(seconds)  # noqa: ASYNC251 - so that other processes take the other requests
        return os.getpid()

    @app.get("/block")
    async def block() -> None:
        time.sleep(60)  # noqa: ASYNC251 - the very fault that is wanted

    @app.websocket("/echo")
    async def echo(websocket: WebSocket) -> None:
        await websocket.accept()
        async for text in websocket.iter_text():
            await websocket.send_text(text)

    return app


if __name__ == "__main__":
    setattr(server, "create_app", create_slow_app)  # noqa: B010 - so that main() is the real one
    setattr(workers, "SILENCE_SECONDS", 2)  # noqa: B010
    setattr(workers, "YOUNG_SECONDS", 1)  # noqa: B010
    server.main()
