from datetime import datetime
from typing import Annotated
from uuid import UUID

from pydantic import AfterValidator, BaseModel, ConfigDict, Field


def storable(text: str) -> str:
    """The text itself, if PostgreSQL can hold it: all of Unicode but NUL."""
    if "\x00" in text:
        raise ValueError("NUL characters cannot be stored")
    return text


Name = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(storable)]
Description = Annotated[str, Field(max_length=2000), AfterValidator(storable)]
Quantity = Annotated[int, Field(ge=0, le=2**31 - 1)]


class ItemContent(BaseModel):
    """What a client may set: all of it, each time."""

    model_config = ConfigDict(strict=True, extra="forbid")

    name: Name
    description: Description | None = None
    quantity: Quantity = 0


class Item(BaseModel):
    id: UUID
    name: str
    description: str | None
    quantity: int
    created_at: datetime
    updated_at: datetime


class ItemPage(BaseModel):
    items: list[Item]
    next: UUID | None
    """Pass it as `after` to get the next page; null on the last one."""


class NotFound(BaseModel):
    detail: str
