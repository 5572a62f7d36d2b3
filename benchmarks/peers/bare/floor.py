"""The contract of Berth's example feature with nothing in between: what the work itself costs."""

import json
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Scope]]
Send = Callable[[Scope], Awaitable[None]]

COLUMNS = "id, name, description, quantity, created_at, updated_at"
PASSWORD = Path("/run/secrets/database-password").read_text()
state: dict[str, Any] = {}


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "lifespan":
        await live(receive, send)
        return
    path: str = scope["path"]
    pool = state["pool"]
    status = 200
    answer: object
    if path == "/livez":
        answer = {"status": "ok"}
    elif scope["method"] == "POST":
        content = json.loads((await receive())["body"])
        row = await pool.fetchrow(
            f"INSERT INTO items (name, description, quantity) VALUES ($1, $2, $3) "  # noqa: S608
            f"RETURNING {COLUMNS}",
            content["name"],
            content.get("description"),
            content.get("quantity", 0),
        )
        status, answer = 201, dict(row)
    elif path == "/items":
        rows = await pool.fetch(f"SELECT {COLUMNS} FROM items ORDER BY id LIMIT 51")  # noqa: S608
        answer = {"items": [dict(row) for row in rows[:50]], "next": rows[49]["id"]}
    else:
        row = await pool.fetchrow(f"SELECT {COLUMNS} FROM items WHERE id = $1", UUID(path[7:]))  # noqa: S608
        status, answer = (200, dict(row)) if row else (404, None)
    body = json.dumps(answer, default=str).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def live(receive: Receive, send: Send) -> None:
    await receive()
    state["pool"] = await asyncpg.create_pool(
        host="db",
        user="berth",
        database="berth",
        password=PASSWORD,
        min_size=4,
        max_size=4,
        reset=as_it_is,
    )
    await send({"type": "lifespan.startup.complete"})
    await receive()
    await send({"type": "lifespan.shutdown.complete"})


async def as_it_is(_: object) -> None:
    """In place of asyncpg's reset, which would be a second round trip."""
