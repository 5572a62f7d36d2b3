from functools import partial
from typing import Annotated, Any
from uuid import UUID

from fastapi import Depends, FastAPI, HTTPException, Query, Request, Response, status

from app.items.repository import ItemRepository, get_repository
from app.items.schemas import Item, ItemContent, ItemPage, NotFound

Repository = Annotated[ItemRepository, Depends(get_repository)]
NOT_FOUND: dict[int | str, dict[str, Any]] = {
    404: {"model": NotFound, "description": "There is no such item"}
}


def add_items(app: FastAPI) -> None:
    """Straight on the app: a router that is included costs each request a second search."""
    one = "/items/{item_id}"
    tagged = partial(app.add_api_route, tags=["items"])
    tagged("/items", create_item, methods=["POST"], status_code=status.HTTP_201_CREATED)
    tagged("/items", list_items, methods=["GET"])
    tagged(one, read_item, methods=["GET"], responses=NOT_FOUND)
    tagged(one, replace_item, methods=["PUT"], responses=NOT_FOUND)
    tagged(one, delete_item, methods=["DELETE"], responses=NOT_FOUND, status_code=204)


async def create_item(
    content: ItemContent, items: Repository, request: Request, response: Response
) -> Item:
    item = await items.create(content)
    response.headers["Location"] = request.app.url_path_for("read_item", item_id=item.id)
    return item


async def list_items(
    items: Repository,
    limit: Annotated[int, Query(ge=1, le=100)] = 50,
    after: Annotated[UUID | None, Query(description="`next` of the page before")] = None,
) -> ItemPage:
    """Oldest first. Items created meanwhile appear on later pages, none twice, none skipped."""
    return await items.page(limit, after)


async def read_item(item_id: UUID, items: Repository) -> Item:
    return found(await items.get(item_id))


async def replace_item(item_id: UUID, content: ItemContent, items: Repository) -> Item:
    return found(await items.replace(item_id, content))


async def delete_item(item_id: UUID, items: Repository) -> None:
    if not await items.delete(item_id):
        raise missing()


def found(item: Item | None) -> Item:
    if item is None:
        raise missing()
    return item


def missing() -> HTTPException:
    return HTTPException(status.HTTP_404_NOT_FOUND, "There is no such item.")
