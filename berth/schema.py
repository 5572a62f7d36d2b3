"""Whether the database has what the app needs: one rule for the server, `migrate` and the doctor.

It is *behind* if a head of this image is missing there and this image knows every revision that is
there. A revision that it does not know is of a newer version, as after a rollback: that is no
fault. `python -m berth.schema` prints what it finds as JSON.
"""

import asyncio
import json
import os
import time
from collections.abc import Collection

import asyncpg

from .postgres import ERRORS, Connection, log_in, reason
from .revisions import Revisions, listed
from .settings import Settings, load_settings

AGAIN_SECONDS = 0.5
# Whoever owns the schema may have put something else in the place of alembic's table.
PATIENCE = {"statement_timeout": "1500"}


def missing(revisions: Revisions, found: Collection[str]) -> frozenset[str]:
    """Return the heads that a database lacks that has had certain revisions; none if it is newer.

    >>> missing(Revisions(frozenset("b"), frozenset("ab")), ["a"])
    frozenset({'b'})
    >>> missing(Revisions(frozenset("b"), frozenset("ab")), ["c"])
    frozenset()
    """
    # Of a branch that goes on, the database remembers the last revision alone.
    return revisions.heads.difference(found) if revisions.known.issuperset(found) else frozenset()


async def applied(connection: Connection) -> list[str]:
    """Return the revisions that alembic remembers in the database."""
    try:
        rows = await connection.fetch("SELECT version_num FROM alembic_version ORDER BY 1")
    except asyncpg.UndefinedTableError:
        return []
    return [str(row[0]) for row in rows]


def spoken(revisions: Collection[str]) -> str:
    """Return revisions as a sentence names them."""
    return ", ".join(sorted(revisions)) or "nothing"


class Schema:
    """Whether this replica has the schema that it needs.

    Once seen it is not asked again: a database that is away must not make replicas unready.
    """

    def __init__(self, settings: Settings, revisions: Revisions) -> None:
        self._settings = settings
        self._revisions = revisions
        self._looked = 0.0
        self._problem: str | None = "the schema was not looked at yet"
        self._looking = asyncio.Lock()

    async def problem(self) -> str | None:
        """Return a sentence, or None when all is well."""
        if self._problem is None:
            return None
        async with self._looking:
            if time.monotonic() - self._looked >= AGAIN_SECONDS:
                self._problem = await self._look()
                self._looked = time.monotonic()
        return self._problem

    async def _look(self) -> str | None:
        try:
            connection = await log_in(self._settings, server_settings=PATIENCE)
            try:
                found = await applied(connection)
            finally:
                await connection.close(timeout=1)
        except ERRORS as error:
            return f"the database is unavailable: {reason(error)}"
        if missing(self._revisions, found):
            return (
                f"the schema is at {spoken(found)}, this version needs "
                f"{spoken(self._revisions.heads)}: run migrate"
            )
        return None


def required(settings: Settings) -> Schema | None:
    """Return what the app needs of its database; None if that is nothing, or if nobody knows."""
    # By alembic's revisions, which another command need not lead to.
    if not settings.has_database or os.environ.get("MIGRATE"):
        return None
    revisions = listed()
    return Schema(settings, revisions) if revisions else None


async def _report() -> dict[str, object]:
    revisions = listed()
    if revisions is None:
        return {}
    connection = await log_in(load_settings(), server_settings=PATIENCE)
    try:
        found = await applied(connection)
    finally:
        await connection.close()
    lacks = missing(revisions, found)
    return {
        "heads": sorted(revisions.heads),
        "applied": found,
        "behind": bool(lacks),
        "unknown": sorted(set(found) - revisions.known),
    }


if __name__ == "__main__":
    print(json.dumps(asyncio.run(_report())))
