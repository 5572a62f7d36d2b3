from collections.abc import Awaitable, Callable
from pathlib import Path

import asyncpg

from app.database import Database

VERSIONS = Path(__file__).parent.parent / "migrations" / "versions"


def known_head() -> int:
    """The number of the newest migration in this image, 0 if there is none.

    Read from the file names: alembic and SQLAlchemy would cost every replica their memory.
    """
    return max((int(file.name.split("_")[0]) for file in VERSIONS.glob("[0-9]*_*.py")), default=0)


async def revision(fetch: Callable[[str], Awaitable[asyncpg.Record | None]]) -> int:
    """The number of the last migration that the database has had, 0 if none."""
    try:
        row = await fetch("SELECT max(version_num) FROM alembic_version")
    except asyncpg.UndefinedTableError:
        return 0
    return int(row[0]) if row and row[0] else 0


class Schema:
    """Whether the database has what this version needs: its own migrations, or more.

    Once seen it is not asked again: a database that is away must not make replicas unready.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._head = known_head()
        self._good = False

    async def problem(self) -> str | None:
        """A sentence, or None when all is well. Raises DatabaseUnavailableError."""
        if self._good:
            return None
        found = await revision(self._database.read_one)
        if found < self._head:
            return f"the schema is at {found:04}, this version needs {self._head:04}: run migrate"
        self._good = True
        return None
