from uuid import UUID

from starlette.requests import Request

from app.database import Database, get_database
from app.items.schemas import Item, ItemContent, ItemPage

COLUMNS = "id, name, description, quantity, created_at, updated_at"


class ItemRepository:
    """One statement for each thing that can be done with items."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def create(self, content: ItemContent) -> Item:
        [row] = await self._database.write(
            f"INSERT INTO items (name, description, quantity) VALUES ($1, $2, $3) "
            f"RETURNING {COLUMNS}",
            content.name,
            content.description,
            content.quantity,
        )
        return Item(**row)

    async def get(self, item_id: UUID) -> Item | None:
        row = await self._database.read_one(f"SELECT {COLUMNS} FROM items WHERE id = $1", item_id)
        return Item(**row) if row else None

    async def page(self, limit: int, after: UUID | None) -> ItemPage:
        """The oldest items after a given one. One row more than asked tells if others follow."""
        start = after or UUID(int=0)
        rows = await self._database.read_all(
            f"SELECT {COLUMNS} FROM items WHERE id > $1 ORDER BY id LIMIT $2", start, limit + 1
        )
        items = [Item(**row) for row in rows[:limit]]
        return ItemPage(items=items, next=items[-1].id if len(rows) > limit else None)

    async def replace(self, item_id: UUID, content: ItemContent) -> Item | None:
        rows = await self._database.write(
            f"UPDATE items SET name = $2, description = $3, quantity = $4, updated_at = now() "
            f"WHERE id = $1 RETURNING {COLUMNS}",
            item_id,
            content.name,
            content.description,
            content.quantity,
        )
        return Item(**rows[0]) if rows else None

    async def delete(self, item_id: UUID) -> bool:
        """Whether there was such an item."""
        return bool(
            await self._database.write("DELETE FROM items WHERE id = $1 RETURNING id", item_id)
        )


async def get_repository(request: Request) -> ItemRepository:
    # Called, not depended on: to resolve one more dependency takes FastAPI longer.
    return ItemRepository(await get_database(request))
