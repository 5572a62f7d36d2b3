import asyncio
import logging
import time
from collections.abc import Iterable
from functools import partial

from alembic import context
from alembic.operations.ops import MigrationScript
from alembic.runtime.migration import MigrationContext
from alembic.util import CommandError
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from app import logs
from app.database import DatabaseUnavailableError, connect
from app.items.models import metadata
from app.settings import load_settings

logger = logging.getLogger("alembic.env")

# "bert" in ASCII. Whoever holds this advisory lock may change the schema.
LOCK_KEY = 0x62657274
TURN_SECONDS = 120

# While a migration waits for a table, every request for that table queues up behind it. So each
# wait is shorter than the app's limit for a statement (1.5 s), with room to breathe in between.
LOCK_SECONDS = 1
LOCK_TRIES = 10
BREATH_SECONDS = 1

# One that needs longer says so itself: op.execute("SET LOCAL statement_timeout = '10min'").
STATEMENT_SECONDS = 30

LOCK_NOT_AVAILABLE = "55P03"


async def main() -> None:
    settings = load_settings()
    logs.configure(settings.log_level)
    # How connections come about is asyncpg's to know: no address with a password is ever built.
    engine = create_async_engine(
        "postgresql+asyncpg://", async_creator=partial(connect, settings), poolclass=NullPool
    )
    try:
        async with engine.connect() as connection:
            await connection.run_sync(migrate)
    except DatabaseUnavailableError as error:
        raise CommandError(str(error)) from error


def migrate(connection: Connection) -> None:
    take_turn(connection)
    connection.execute(text(f"SET lock_timeout = '{LOCK_SECONDS}s'"))
    connection.execute(text(f"SET statement_timeout = '{STATEMENT_SECONDS}s'"))
    # Within an open transaction alembic would leave committing to us.
    connection.commit()
    context.configure(
        connection=connection,
        target_metadata=metadata,
        compare_server_default=True,
        transaction_per_migration=True,
        process_revision_directives=number,
    )
    for tries_left in reversed(range(LOCK_TRIES)):
        try:
            with context.begin_transaction():
                context.run_migrations()
        except DBAPIError as error:
            if not (waited_for_lock(error) and tries_left):
                raise CommandError(f"A migration failed and was rolled back: {error}") from error
            connection.rollback()
            logger.warning("A table is in use, trying again (%d tries left)", tries_left)
            time.sleep(BREATH_SECONDS)
        else:
            return


def take_turn(connection: Connection) -> None:
    """Return once no one else migrates, and none will until this connection closes."""
    if connection.scalar(text(f"SELECT pg_try_advisory_lock({LOCK_KEY})")):
        return
    logger.info("Another migration is running: waiting for it")
    try:
        connection.execute(text(f"SET lock_timeout = '{TURN_SECONDS}s'"))
        connection.execute(text(f"SELECT pg_advisory_lock({LOCK_KEY})"))
    except DBAPIError as error:
        if not waited_for_lock(error):
            raise
        raise CommandError(
            f"Another migration has been running for {TURN_SECONDS} s: look at it, or end it."
        ) from error


def waited_for_lock(error: DBAPIError) -> bool:
    return getattr(error.orig, "sqlstate", None) == LOCK_NOT_AVAILABLE


def number(
    migration: MigrationContext,  # noqa: ARG001
    revision: str | Iterable[str | None] | Iterable[str],  # noqa: ARG001
    scripts: list[MigrationScript],
) -> None:
    """Name revisions 0001, 0002, …: the app compares them as numbers."""
    scripts[0].rev_id = f"{int(context.script.get_current_head() or 0) + 1:04}"


asyncio.run(main())
