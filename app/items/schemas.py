from datetime import datetime
from typing import Annotated
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

# PostgreSQL can hold all of Unicode but NUL.
TEXT = r"^[^\x00]*$"


class ItemContent(BaseModel):
    """What a client may set: all of it, each time."""

    model_config = ConfigDict(strict=True, extra="forbid")

    name: Annotated[str, Field(min_length=1, max_length=200, pattern=TEXT)]
    description: Annotated[str, Field(max_length=2000, pattern=TEXT)] | None = None
    quantity: Annotated[int, Field(ge=0, le=2**31 - 1)] = 0


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
