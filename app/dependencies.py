from collections.abc import AsyncIterator
from typing import Annotated

from asyncpg.pool import PoolConnectionProxy
from fastapi import Depends, Request


async def get_connection(request: Request) -> AsyncIterator[PoolConnectionProxy]:
    # Longer than a migration holds up requests: a second, and a moment to catch up.
    async with request.state.pool.acquire(timeout=2.5) as connection:
        yield connection


# The scope has it given back, and committed, before the answer is sent.
Connection = Annotated[PoolConnectionProxy, Depends(get_connection, scope="function")]


async def get_transaction(connection: Connection) -> AsyncIterator[PoolConnectionProxy]:
    async with connection.transaction():
        yield connection


Transaction = Annotated[PoolConnectionProxy, Depends(get_transaction, scope="function")]
