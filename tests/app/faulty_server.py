"""The server with endpoints that tell what it believes, take their time, or have bugs."""

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import Body, Depends, FastAPI, Request
from fastapi.responses import StreamingResponse

from app import server
from app.database import Database, get_database
from app.main import create_app
from app.settings import Settings


def create_faulty_app(settings: Settings) -> FastAPI:
    app = create_app(settings)

    @app.get("/where")
    async def where(request: Request) -> dict[str, str | None]:
        client = request.client.host if request.client else None
        return {"client": client, "url": str(request.url_for("where"))}

    @app.get("/sleep/{seconds}")
    async def sleep(seconds: float) -> float:
        await asyncio.sleep(seconds)
        return seconds

    @app.get("/stream/{seconds}")
    async def stream(seconds: float) -> StreamingResponse:
        async def parts() -> AsyncIterator[str]:
            yield "begun"
            await asyncio.sleep(seconds)

        return StreamingResponse(parts())

    @app.get("/large/{size}")
    async def large(size: int) -> str:
        return "x" * size

    @app.post("/bug")
    async def bug(text: Annotated[str, Body()]) -> None:
        raise RuntimeError(f"a bug that met {len(text)} characters")

    @app.post("/bug/database")
    async def quote(
        text: Annotated[str, Body()], database: Annotated[Database, Depends(get_database)]
    ) -> None:
        await database.write("INSERT INTO items (name, quantity) VALUES ($1, -1)", text)

    @app.post("/bug/answer", response_model=int)
    async def wrong(text: Annotated[str, Body()]) -> object:
        return {"name": text}

    return app


if __name__ == "__main__":
    setattr(server, "create_app", create_faulty_app)  # noqa: B010 - so that main() is the real one
    server.main()
