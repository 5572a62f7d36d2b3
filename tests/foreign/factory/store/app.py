"""A store by SQLAlchemy, all async, made by a factory, behind middleware that trusts nobody."""

import asyncio
import os
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated
from uuid import UUID, uuid4

from fastapi import APIRouter, Depends, FastAPI, HTTPException, Request, Response
from pydantic import BaseModel
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from starlette.middleware.base import RequestResponseEndpoint
from starlette.middleware.httpsredirect import HTTPSRedirectMiddleware
from starlette.middleware.trustedhost import TrustedHostMiddleware

from store.models import Item
from store.version import VERSION

# For those who bring no key, from one address.
REQUESTS_A_PROCESS = 10

engine = create_async_engine(
    os.environ["DATABASE_URL"],
    pool_size=4,
    max_overflow=0,
    pool_timeout=3,
    connect_args={"timeout": 3, "command_timeout": 3},
)
new_session = async_sessionmaker(engine, expire_on_commit=False)
router = APIRouter()


class ItemCreate(BaseModel):
    name: str


async def get_session() -> AsyncIterator[AsyncSession]:
    async with new_session() as session:
        yield session


SessionDep = Annotated[AsyncSession, Depends(get_session)]


@router.post("/items", status_code=201)
async def create(item: ItemCreate, session: SessionDep) -> dict[str, str]:
    row = Item(id=uuid4(), name=item.name)
    session.add(row)
    await session.commit()
    return {"id": str(row.id), "name": row.name}


@router.get("/items/{item_id}")
async def read(item_id: UUID, session: SessionDep) -> dict[str, str]:
    if row := await session.get(Item, item_id):
        return {"id": str(row.id), "name": row.name}
    raise HTTPException(404)


@router.get("/sleep/{seconds}")
async def sleep(seconds: float) -> float:
    await asyncio.sleep(seconds)
    return seconds


@router.get("/bug")
async def bug() -> None:
    raise RuntimeError("a bug")


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    yield
    await engine.dispose()


def create_app() -> FastAPI:
    app = FastAPI(title=f"Store {VERSION}", lifespan=lifespan)
    app.include_router(router)
    asked: Counter[str] = Counter()

    @app.middleware("http")
    async def limit_rate(request: Request, call_next: RequestResponseEndpoint) -> Response:
        if request.headers.get("X-API-Key") != os.environ["API_KEY"]:
            address = request.client.host if request.client else ""
            asked[address] += 1
            if asked[address] > REQUESTS_A_PROCESS:
                return Response("Too many requests", 429)
        return await call_next(request)

    app.add_middleware(HTTPSRedirectMiddleware)
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=os.environ["ALLOWED_HOSTS"].split(","))
    return app
