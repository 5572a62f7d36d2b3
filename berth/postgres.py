"""Berth's own connections to the database: to wait for it, to see its schema, to guard migrations.

The app's are the app's own affair: it finds DATABASE_URL, and PGHOST and its like.
"""

import asyncio
import logging
import os
from typing import Any, TypeAlias
from urllib.parse import quote

import asyncpg

from .settings import Settings

logger = logging.getLogger(__name__)

# As a string: only the type stubs know that it is generic.
Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

ATTEMPT_SECONDS = 1.8
START_SECONDS = 60

# What a log-in may fail with while the database is not there, or not yet.
ERRORS = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError)


class DatabaseUnavailableError(Exception):
    """The database cannot be reached. Says why."""


def login(settings: Settings) -> tuple[str, str]:
    """Return who logs in, and the password, as the files say at this moment.

    Where nobody says who, the file is a link to one that is called as the role: so both change at
    once.
    """
    user, file = settings.database_user, settings.database_password_file
    if not user:
        file = file.parent / file.readlink()
        user = file.name
    return user, file.read_text().rstrip("\n")


def export(settings: Settings) -> None:
    """Put what leads to the database into this process's environment, and so into the app's.

    As PGHOST and its like, which libpq, psycopg and asyncpg read, and as DATABASE_URL. What is set
    already stays.
    """
    if not settings.database_host:
        return
    user, password = login(settings)
    name = settings.database_name
    where = f"{settings.database_host}:{settings.database_port}"
    found = {
        "PGHOST": settings.database_host,
        "PGPORT": str(settings.database_port),
        "PGDATABASE": name,
        "PGUSER": user,
        "PGPASSWORD": password,
        "DATABASE_URL": f"{os.environ.get('DATABASE_SCHEME') or 'postgresql'}://"
        f"{quote(user, safe='')}:{quote(password, safe='')}@{where}/{quote(name, safe='')}",
    }
    for variable, value in found.items():
        os.environ.setdefault(variable, value)


async def log_in(settings: Settings, **options: Any) -> Connection:  # noqa: ANN401
    """Return a connection.

    Raises:
        OSError, asyncpg.PostgresError, asyncpg.InterfaceError: There is none to be had.
    """
    user, password = login(settings)
    return await asyncpg.connect(
        host=settings.database_host,
        port=settings.database_port,
        user=user,
        database=settings.database_name,
        password=password,
        timeout=ATTEMPT_SECONDS,
        **options,
    )


async def connect(settings: Settings) -> Connection:
    """Return a connection as soon as the database accepts one.

    Raises:
        DatabaseUnavailableError: It did not within START_SECONDS; says the last reason.
    """
    where = f"{settings.database_host}:{settings.database_port}"
    deadline = asyncio.get_running_loop().time() + START_SECONDS
    last = ""
    while True:
        try:
            return await log_in(settings)
        except ERRORS as error:
            why = reason(error)
        if asyncio.get_running_loop().time() > deadline:
            raise DatabaseUnavailableError(
                f"No connection to the database at {where} in {START_SECONDS} s: {why}. "
                "Check that it runs, and DATABASE_HOST, DATABASE_PORT, DATABASE_NAME, "
                "DATABASE_USER and DATABASE_PASSWORD_FILE."
            )
        if why != last:
            logger.info("waiting for the database at %s: %s", where, why)
            last = why
        await asyncio.sleep(0.5)


def reason(error: BaseException) -> str:
    """Return what an exception says, or its name if it says nothing."""
    return str(error) or type(error).__name__
