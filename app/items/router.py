from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, HTTPException, Query, Request, Response

from app.dependencies import Connection, Transaction
from app.items.schemas import Item, ItemContent, ItemPage

COLUMNS = "id, name, description, quantity, created_at, updated_at"

router = APIRouter(
    prefix="/items",
    tags=["items"],
    responses={400: {"description": "No JSON"}, 404: {"description": "No such item"}},
)


@router.post("", status_code=201)
async def create_item(
    content: ItemContent, connection: Transaction, request: Request, response: Response
) -> Item:
    [row] = await connection.fetch(
        f"INSERT INTO items (name, description, quantity) VALUES ($1, $2, $3) RETURNING {COLUMNS}",
        *(content.name, content.description, content.quantity),
    )
    item = Item(**row)
    response.headers["Location"] = request.app.url_path_for("read_item", item_id=item.id)
    return item


@router.get("")
async def list_items(
    connection: Connection,
    limit: Annotated[int, Query(ge=1, le=100)] = 50,
    after: Annotated[UUID | None, Query(description="`next` of the page before")] = None,
) -> ItemPage:
    """Oldest first. Items created meanwhile appear on later pages, none twice, none skipped."""
    # One row more than asked tells if others follow.
    rows = await connection.fetch(
        f"SELECT {COLUMNS} FROM items WHERE id > $1 ORDER BY id LIMIT $2",
        *(after or UUID(int=0), limit + 1),
    )
    items = [Item(**row) for row in rows[:limit]]
    return ItemPage(items=items, next=items[-1].id if len(rows) > limit else None)


@router.get("/{item_id}")
async def read_item(item_id: UUID, connection: Connection) -> Item:
    row = await connection.fetchrow(f"SELECT {COLUMNS} FROM items WHERE id = $1", item_id)
    if row is None:
        raise HTTPException(404, "There is no such item.")
    return Item(**row)


@router.put("/{item_id}")
async def replace_item(item_id: UUID, content: ItemContent, connection: Transaction) -> Item:
    row = await connection.fetchrow(
        "UPDATE items SET name = $2, description = $3, quantity = $4, updated_at = now() "
        f"WHERE id = $1 RETURNING {COLUMNS}",
        *(item_id, content.name, content.description, content.quantity),
    )
    if row is None:
        raise HTTPException(404, "There is no such item.")
    return Item(**row)


@router.delete("/{item_id}", status_code=204)
async def delete_item(item_id: UUID, connection: Transaction) -> None:
    row = await connection.fetchrow("DELETE FROM items WHERE id = $1 RETURNING id", item_id)
    if row is None:
        raise HTTPException(404, "There is no such item.")
