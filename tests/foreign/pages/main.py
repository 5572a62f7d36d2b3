"""Pages, events, WebSockets and uploads, with no database at all."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import UUID, uuid4

from fastapi import FastAPI, UploadFile, WebSocket, WebSocketDisconnect
from fastapi.responses import FileResponse, StreamingResponse
from fastapi.staticfiles import StaticFiles
from pydantic import BaseModel
from version import VERSION

HERE = Path(__file__).parent

app = FastAPI(title=f"Pages {VERSION}")
app.mount("/static", StaticFiles(directory=HERE / "static"))


class ItemCreate(BaseModel):
    name: str


@app.get("/", response_class=FileResponse)
async def index() -> Path:
    return HERE / "index.html"


@app.websocket("/echo")
async def echo(websocket: WebSocket) -> None:
    await websocket.accept()
    try:
        while True:
            await websocket.send_text(await websocket.receive_text())
    except WebSocketDisconnect:
        pass


@app.get("/events")
async def events() -> StreamingResponse:
    async def parts() -> AsyncIterator[str]:
        number = 0
        while True:
            yield f"data: {number}\n\n"
            number += 1
            await asyncio.sleep(0.2)

    return StreamingResponse(parts(), media_type="text/event-stream")


@app.post("/upload")
async def upload(file: UploadFile) -> int:
    return len(await file.read())


@app.post("/items", status_code=201)
async def create(item: ItemCreate) -> dict[str, str]:
    return {"id": str(uuid4()), "name": item.name}


@app.get("/items/{item_id}")
async def read(item_id: UUID) -> UUID:
    return item_id


@app.get("/sleep/{seconds}")
async def sleep(seconds: float) -> float:
    await asyncio.sleep(seconds)
    return seconds


@app.get("/bug")
async def bug() -> None:
    raise RuntimeError("a bug")
