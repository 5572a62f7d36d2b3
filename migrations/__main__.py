"""What the `migrate` service runs: `alembic upgrade head`, when there is anything to upgrade.

It runs at every start, so being at head must cost little: alembic is imported only when needed.
A schema newer than this version's is no error either, but what a rollback of the app looks like.
"""

import asyncio
import logging
import sys
from pathlib import Path

from app import logs
from app.database import DatabaseUnavailableError, connect
from app.schema import known_head, revision
from app.settings import Settings, load_settings

logger = logging.getLogger("migrations")

PYPROJECT = Path(__file__).parent.parent / "pyproject.toml"


async def current(settings: Settings) -> int:
    connection = await connect(settings)
    try:
        return await revision(connection.fetchrow)
    finally:
        await connection.close()


def upgrade() -> None:
    from alembic import command
    from alembic.config import Config
    from alembic.util import CommandError

    try:
        command.upgrade(Config(toml_file=PYPROJECT), "head")
    except CommandError as error:
        sys.exit(f"{error}")


def main() -> None:
    settings = load_settings()
    logs.configure(settings.log_level)
    try:
        found = asyncio.run(current(settings))
    except DatabaseUnavailableError as error:
        sys.exit(f"{error}")
    if found < known_head():
        upgrade()
    else:
        logger.info("The schema is at %04d, this version needs %04d: fine", found, known_head())


if __name__ == "__main__":
    main()
