"""Starts a replica anew after RECYCLE_REQUESTS, before what leaks in it fills its memory.

One replica at a time, and drained like any other: uvicorn's own limit_max_requests ends a server
that is still being sent requests. The process replaces itself, so that neither Docker's count of
restarts nor its back-off takes it for a crash.
"""

import asyncio
import logging
import os
import sys
from typing import NoReturn

import asyncpg

from app.database import Connection, DatabaseUnavailableError, connect, reason
from app.settings import Settings

logger = logging.getLogger(__name__)

# "recy" in ASCII. Whoever holds this advisory lock may leave.
LOCK_KEY = 0x72656379
# Whoever held it last is back by then.
SETTLE_SECONDS = 10
RETRY_SECONDS = 60

OTHERS = """
    SELECT count(DISTINCT client_addr) > 1 FROM pg_stat_activity
    WHERE application_name = 'berth-api'
"""


async def wait_for_turn(settings: Settings) -> Connection:
    """Return once this replica may leave and others serve.

    The turn lasts for as long as the connection that is returned.
    """
    while True:
        try:
            connection = await connect(settings)
            await connection.execute(f"SELECT pg_advisory_lock({LOCK_KEY})")
            await asyncio.sleep(SETTLE_SECONDS)
            if await connection.fetchval(OTHERS):
                return connection
            await connection.close()
            why = "no other replica serves"
        except (
            DatabaseUnavailableError,
            OSError,
            asyncpg.PostgresError,
            asyncpg.InterfaceError,
        ) as error:
            why = reason(error)
        logger.warning("due to start anew, but %s: trying again in %d s", why, RETRY_SECONDS)
        await asyncio.sleep(RETRY_SECONDS)


def start_anew() -> NoReturn:
    """Replace this process by a fresh one of the same program."""
    logging.shutdown()
    os.execv(sys.executable, sys.orig_argv)  # noqa: S606 - no shell is wanted
