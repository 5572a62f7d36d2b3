"""Berth's own connections to the database: to wait for it, to see its schema, to guard migrations.

The app's are the app's own affair: it finds DATABASE_URL, and PGHOST and its like.
`python -m berth.postgres` says in a sentence why there is none to be had.
"""

import asyncio
import logging
import ssl
import sys
from typing import Any, TypeAlias

import asyncpg

from .database import Database, DatabaseURLError, login
from .settings import Settings, load_settings

logger = logging.getLogger(__name__)

# As a string: only the type stubs know that it is generic.
Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

ATTEMPT_SECONDS = 1.8
START_SECONDS = 60
# One that is elsewhere does not start with us, and may be far away.
FAR_ATTEMPT_SECONDS = 5.0
FAR_SECONDS = 15
SETTLED_BY = "DATABASE_HOST, DATABASE_PORT, DATABASE_NAME, DATABASE_USER and DATABASE_PASSWORD_FILE"

# What a log-in may fail with while the database is not there, or not yet.
ERRORS = (
    OSError,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    DatabaseURLError,
)
# Those of them that a database elsewhere will not get over by itself.
REFUSALS = (
    ssl.SSLCertVerificationError,
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.InvalidCatalogNameError,
    DatabaseURLError,
)


class DatabaseUnavailableError(Exception):
    """The database cannot be reached. Says why."""


async def log_in(
    settings: Settings,
    timeout: float = ATTEMPT_SECONDS,  # noqa: ASYNC109 - it is asyncpg's
    **options: Any,  # noqa: ANN401
) -> Connection:
    """Return a connection.

    Raises:
        Exception: One of ERRORS: there is none to be had.
    """
    return await asyncpg.connect(**_login(settings).arguments(), timeout=timeout, **options)


def _login(settings: Settings) -> Database:
    database = login(settings)
    assert database  # noqa: S101 - nobody asks for a connection where there is no database
    return database


def _where(settings: Settings) -> str:
    if settings.database_url_file:
        return _login(settings).where
    return f"{settings.database_host}:{settings.database_port}"


async def connect(settings: Settings) -> Connection:
    """Return a connection as soon as the database accepts one.

    Raises:
        DatabaseUnavailableError: It did not in time, or will not ever; says the last reason.
    """
    elsewhere = bool(settings.database_url_file)
    patience = FAR_SECONDS if elsewhere else START_SECONDS
    attempt = FAR_ATTEMPT_SECONDS if elsewhere else ATTEMPT_SECONDS
    deadline = asyncio.get_running_loop().time() + patience
    last = ""
    while True:
        try:
            return await log_in(settings, attempt)
        except ERRORS as error:
            why = reason(error)
            if elsewhere and isinstance(error, REFUSALS):
                raise DatabaseUnavailableError(_refused(settings, error)) from None
        where = _where(settings)
        if asyncio.get_running_loop().time() > deadline:
            settled_by = "DATABASE_URL_FILE" if elsewhere else SETTLED_BY
            raise DatabaseUnavailableError(
                f"No connection to the database at {where} in {patience} s: {why}. "
                f"Check that it runs, and {settled_by}."
            )
        if why != last:
            logger.info("waiting for the database at %s: %s", where, why)
            last = why
        await asyncio.sleep(0.5)


def _refused(settings: Settings, error: BaseException) -> str:
    """Say why waiting would not help."""
    if isinstance(error, DatabaseURLError):
        return str(error)
    where = _where(settings)
    if isinstance(error, ssl.SSLCertVerificationError):
        return (
            f"The database at {where} is not to be trusted: {error.verify_message}. Give the "
            "provider's CA as DATABASE_CA, and the host in DATABASE_URL_FILE by its full name."
        )
    return f"The database at {where} lets nobody in by DATABASE_URL_FILE: {reason(error)}."


def reason(error: BaseException) -> str:
    """Return what an exception says, or its name if it says nothing."""
    return str(error) or type(error).__name__


async def main() -> None:
    """Log in once, if there is a database."""
    settings = load_settings()
    if settings.has_database:
        try:
            await (await connect(settings)).close()
        except DatabaseUnavailableError as error:
            sys.exit(str(error))


if __name__ == "__main__":
    asyncio.run(main())
