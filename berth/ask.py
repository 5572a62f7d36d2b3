"""Asks the database as the app's role: `python -m berth.ask "SELECT to_json(1)"` prints JSON.

For a database elsewhere, into which there is no other way from this machine.
"""

import asyncio
import json
import sys

from .database import login
from .postgres import ERRORS, log_in, reason
from .schema import PATIENCE
from .settings import load_settings


async def main(query: str) -> None:
    """Print where the database is, who may answer there, and the one value of a query.

    A database that does not answer ends the program with a sentence.
    """
    settings = load_settings()
    try:
        database = login(settings)
        connection = await log_in(settings, server_settings=PATIENCE)
        try:
            answer = await connection.fetchval(query)
        finally:
            await connection.close(timeout=1)
    except ERRORS as error:
        sys.exit(f"the database does not answer: {reason(error)}")
    assert database  # noqa: S101 - or there was no connection
    found = json.loads(answer) if answer else None
    print(json.dumps({"where": database.where, "sslmode": database.sslmode, "answer": found}))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
