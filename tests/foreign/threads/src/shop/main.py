"""A shop by SQLModel: psycopg, and endpoints in threads."""

import os
import time
from collections.abc import Iterator
from typing import Annotated
from uuid import UUID, uuid4

from fastapi import APIRouter, Depends, FastAPI, HTTPException
from sqlmodel import Field, Session, SQLModel, create_engine

from shop.version import VERSION

engine = create_engine(
    os.environ["DATABASE_URL"],
    pool_pre_ping=True,
    pool_size=4,
    max_overflow=0,
    pool_timeout=3,
    connect_args={"connect_timeout": 3, "tcp_user_timeout": 3000},
)


class ItemCreate(SQLModel):
    name: str


class Item(ItemCreate, table=True):
    __tablename__ = "items"
    id: UUID = Field(default_factory=uuid4, primary_key=True)
    price: int | None = None


def get_session() -> Iterator[Session]:
    with Session(engine) as session:
        yield session


SessionDep = Annotated[Session, Depends(get_session)]
router = APIRouter(prefix="/items")


@router.post("", status_code=201)
def create(item: ItemCreate, session: SessionDep) -> Item:
    row = Item.model_validate(item)
    session.add(row)
    session.commit()
    session.refresh(row)
    return row


@router.get("/{item_id}")
def read(item_id: UUID, session: SessionDep) -> Item:
    if row := session.get(Item, item_id):
        return row
    raise HTTPException(404)


app = FastAPI(title=f"Shop {VERSION}")
app.include_router(router)


@app.get("/sleep/{seconds}")
def sleep(seconds: float) -> float:
    time.sleep(seconds)
    return seconds


@app.get("/bug")
def bug() -> None:
    raise RuntimeError("a bug")
