"""The contract of Berth's example feature, in the style of the template: sessions in threads."""

import uuid
from collections.abc import Generator
from datetime import datetime
from pathlib import Path
from typing import Annotated

from fastapi import Depends, FastAPI, HTTPException, Query
from sqlalchemy import Column, DateTime, func, text
from sqlmodel import Field, Session, SQLModel, col, create_engine, select

password = Path("/run/secrets/database-password").read_text()
engine = create_engine(f"postgresql+psycopg://berth:{password}@db:5432/berth")


class ItemBase(SQLModel):
    name: str = Field(min_length=1, max_length=200)
    description: str | None = Field(default=None, max_length=2000)
    quantity: int = Field(default=0, ge=0)


class ItemCreate(ItemBase):
    pass


class Item(ItemBase, table=True):
    __tablename__ = "items"

    id: uuid.UUID | None = Field(
        default=None, primary_key=True, sa_column_kwargs={"server_default": text("uuidv7()")}
    )
    created_at: datetime | None = Field(
        default=None, sa_column=Column(DateTime(timezone=True), server_default=func.now())
    )
    updated_at: datetime | None = Field(
        default=None, sa_column=Column(DateTime(timezone=True), server_default=func.now())
    )


class ItemPublic(ItemBase):
    id: uuid.UUID
    created_at: datetime
    updated_at: datetime


class ItemsPublic(SQLModel):
    items: list[ItemPublic]
    next: uuid.UUID | None


def get_db() -> Generator[Session]:
    with Session(engine) as session:
        yield session


SessionDep = Annotated[Session, Depends(get_db)]
app = FastAPI()


@app.get("/livez")
async def live() -> bool:
    return True


@app.get("/items", response_model=ItemsPublic)
def read_items(
    session: SessionDep,
    limit: Annotated[int, Query(ge=1, le=100)] = 50,
    after: uuid.UUID | None = None,
) -> object:
    statement = select(Item).order_by(col(Item.id)).limit(limit + 1)
    if after:
        statement = statement.where(col(Item.id) > after)
    items = session.exec(statement).all()
    return {
        "items": items[:limit],
        "next": items[limit - 1].id if len(items) > limit else None,
    }


@app.get("/items/{item_id}", response_model=ItemPublic)
def read_item(session: SessionDep, item_id: uuid.UUID) -> object:
    item = session.get(Item, item_id)
    if not item:
        raise HTTPException(status_code=404, detail="Item not found")
    return item


@app.post("/items", response_model=ItemPublic, status_code=201)
def create_item(*, session: SessionDep, item_in: ItemCreate) -> object:
    item = Item.model_validate(item_in)
    session.add(item)
    session.commit()
    session.refresh(item)
    return item
