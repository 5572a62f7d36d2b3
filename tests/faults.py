"""The example with endpoints that take their time, tell what they believe, or do harm.

As a program it is Berth's server with that app, and less patience: as it is in tests/berth, and by
tests/stack/compose.faults.yaml in a stack's containers.
"""

import asyncio
import ctypes
import logging
import os
import time
from collections.abc import AsyncIterator
from importlib import import_module
from importlib.util import find_spec
from typing import Annotated

from fastapi import APIRouter, Body, Request, WebSocket
from fastapi.responses import StreamingResponse

from app.dependencies import Transaction
from app.main import app

logger = logging.getLogger(__name__)

FOREVER = 3600

router = APIRouter()


@router.get("/where")
async def where(request: Request) -> dict[str, str | None]:
    client = request.client.host if request.client else None
    return {"client": client, "url": str(request.url_for("where"))}


@router.get("/headers")
async def headers(request: Request) -> dict[str, str]:
    return dict(request.headers)


@router.get("/sleep/{seconds}")
async def sleep(seconds: float) -> float:
    logger.debug("begun")
    await asyncio.sleep(seconds)
    return seconds


@router.get("/stream/{seconds}")
async def stream(seconds: float) -> StreamingResponse:
    async def parts() -> AsyncIterator[str]:
        logger.debug("begun")
        for part in range(10):
            yield f"{part}"
            await asyncio.sleep(seconds / 10)

    return StreamingResponse(parts())


@router.websocket("/echo")
async def echo(websocket: WebSocket) -> None:
    await websocket.accept()
    async for text in websocket.iter_text():
        await websocket.send_text(text)


@router.get("/busy/{seconds}")
async def busy(seconds: float) -> int:
    time.sleep(seconds)  # noqa: ASYNC251 - so that other processes take the other requests
    return os.getpid()


@router.get("/large/{size}")
async def large(size: int) -> str:
    return "x" * size


@router.post("/bug")
async def bug(text: Annotated[str, Body()]) -> None:
    raise RuntimeError(f"a bug that met {len(text)} characters")


@router.post("/bug/database")
async def quote(text: Annotated[str, Body()], connection: Transaction) -> None:
    await connection.execute("INSERT INTO items (name, quantity) VALUES ($1, -1)", text)


@router.post("/bug/answer", response_model=int)
async def wrong(text: Annotated[str, Body()]) -> object:
    return {"name": text}


@router.get("/exit")
async def end() -> None:
    os._exit(3)


@router.get("/memory")
async def memory() -> None:
    hoard = []
    while True:
        hoard.append(b"x" * 2**20)


@router.get("/block")
async def block() -> None:
    logger.debug("begun")
    time.sleep(FOREVER)  # noqa: ASYNC251 - the loop stands still


@router.get("/hold-gil")
async def hold_gil() -> None:
    ctypes.PyDLL(None).sleep(FOREVER)  # unlike CDLL, does not give up the GIL


app.include_router(router)


def main() -> None:
    # In an image it has another name.
    package = "_berth" if find_spec("_berth") else "berth"
    # By setattr, so that main() is the real one, and what takes long does not.
    for module, name, value in (
        ("workers", "SILENCE_SECONDS", 2),
        ("workers", "YOUNG_SECONDS", 1),
        ("recycling", "SETTLE_SECONDS", 3),
        ("recycling", "RETRY_SECONDS", 1),
    ):
        setattr(import_module(f"{package}.{module}"), name, value)
    os.environ["APP"] = f"{__spec__.name}:app"
    import_module(f"{package}.server").main()


if __name__ == "__main__":
    main()
