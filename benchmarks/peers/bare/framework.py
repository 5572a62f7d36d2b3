"""The same contract on a FastAPI with nothing else in it: what the framework alone costs."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg
from fastapi import FastAPI, HTTPException
from pydantic import BaseModel

COLUMNS = "id, name, description, quantity, created_at, updated_at"
START = UUID(int=0)
PASSWORD = Path("/run/secrets/database-password").read_text()


class Content(BaseModel):
    name: str
    description: str | None = None
    quantity: int = 0


class Item(Content):
    id: UUID
    created_at: datetime
    updated_at: datetime


class Page(BaseModel):
    items: list[Item]
    next: UUID | None


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with asyncpg.create_pool(
        host="db", user="berth", database="berth", password=PASSWORD, min_size=4, max_size=4
    ) as pool:
        app.state.pool = pool
        yield


app = FastAPI(lifespan=lifespan)


@app.get("/livez")
async def live() -> bool:
    return True


@app.get("/items/{item_id}")
async def read_item(item_id: UUID) -> Item:
    row = await app.state.pool.fetchrow(f"SELECT {COLUMNS} FROM items WHERE id = $1", item_id)  # noqa: S608
    if row is None:
        raise HTTPException(404)
    return Item(**row)


@app.get("/items")
async def list_items(limit: int = 50, after: UUID = START) -> Page:
    rows: list[Any] = await app.state.pool.fetch(
        f"SELECT {COLUMNS} FROM items WHERE id > $1 ORDER BY id LIMIT $2",  # noqa: S608
        after,
        limit + 1,
    )
    items = [Item(**row) for row in rows[:limit]]
    return Page(items=items, next=items[-1].id if len(rows) > limit else None)


@app.post("/items", status_code=201)
async def create_item(content: Content) -> Item:
    row = await app.state.pool.fetchrow(
        f"INSERT INTO items (name, description, quantity) VALUES ($1, $2, $3) RETURNING {COLUMNS}",  # noqa: S608
        *(content.name, content.description, content.quantity),
    )
    return Item(**row)
