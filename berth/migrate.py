"""What the `migrate` service runs: the app's own migrations, guarded from outside.

One at a time, by a lock that Berth holds on a connection of its own; with short waits for tables,
so that the requests that queue up behind a migration pass; tried again when a table was in use.
The app's alembic is run as it is. MIGRATE is another command in its place, or `none`;
AFTER_MIGRATE is one to run afterwards, such as for initial data, at every start.

It runs at every start, so being at head must cost little: alembic is started only when needed.
"""

import asyncio
import logging
import os
import re
import shlex
import subprocess
import sys
import time
from pathlib import Path

import asyncpg

from . import environment, logs
from .postgres import ERRORS, Connection, DatabaseUnavailableError, connect, reason
from .revisions import Revisions, listed
from .schema import applied, missing, spoken
from .settings import load_settings

logger = logging.getLogger("migrate")

# "bert" in ASCII. Whoever holds this advisory lock may change the schema.
LOCK_KEY = 0x62657274
TURN_SECONDS = 120

# While a migration waits for a table, every request for that table queues up behind it. So each
# wait is short, with room to breathe in between.
LOCK_SECONDS = 1
LOCK_TRIES = 10
BREATH_SECONDS = 1
# One that needs longer says so itself: op.execute("SET LOCAL statement_timeout = '10min'").
STATEMENT_SECONDS = 30

# Drivers of libpq's read PGOPTIONS; this has asyncpg do so, too.
FOR_ASYNCPG = Path(__file__).parent / "elsewhere"

ALEMBIC = (sys.executable, "-m", "alembic", "upgrade", "head")
# How a lock time-out (SQLSTATE 55P03) shows in the output of whatever driver there is, and a wait
# that we have ended.
LOCK_TIMEOUT = re.compile(rb"LockNotAvailable|55P03|due to lock timeout|due to user request")
END_LONG_WAITS = """
SELECT pg_cancel_backend(pid)
FROM pg_locks JOIN pg_stat_activity USING (pid)
WHERE NOT granted AND locktype = 'relation' AND database = datid
    AND mode IN ('ShareLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock')
    AND waitstart < clock_timestamp() - make_interval(secs => $1)
    AND datname = current_database() AND usename = current_user
    AND backend_start > (
        SELECT backend_start FROM pg_stat_activity WHERE pid = pg_backend_pid())
"""
# The line of a traceback, or of alembic's own complaint, that says what went wrong, and those below
# it, in which pydantic names the variable.
COMPLAINT = re.compile(
    r"^(?:[\w.]+(?:Error|Exception|Available|Undefined\w+)\b.*|FAILED: .*)(?:\n.+){0,2}",
    re.MULTILINE,
)


class MigrationError(Exception):
    """The schema is not what the app needs. Says why."""


async def main() -> None:
    """Bring the schema to what the app needs.

    Raises:
        MigrationError: That failed.
        DatabaseUnavailableError: There is no database.
    """
    settings = load_settings()
    logs.configure(settings.log_level, settings.log_format)
    environment.prepare(settings)
    command, revisions = _command()
    if settings.has_database:
        connection = await connect(settings)
        try:
            elsewhere = bool(settings.database_url_file)
            await _guarded(connection, command, revisions, elsewhere=elsewhere)
        finally:
            await connection.close()
    elif command:
        _run(command)


def _command() -> tuple[tuple[str, ...], Revisions | None]:
    """Return what to run, if anything, and the revisions that it leads to, if that is known."""
    told = os.environ.get("MIGRATE", "")
    if told == "none":
        return (), None
    if told:
        return ("sh", "-c", told), None
    try:
        revisions = listed()
    except RuntimeError as error:
        raise MigrationError(str(error)) from None
    if revisions is None:
        return (), None
    if len(revisions.heads) > 1:
        raise MigrationError(
            f"alembic has {len(revisions.heads)} heads ({spoken(revisions.heads)}): join them with "
            "`alembic merge heads`, or set MIGRATE='alembic upgrade heads'"
        )
    return ALEMBIC, revisions


async def _guarded(
    connection: Connection,
    command: tuple[str, ...],
    revisions: Revisions | None,
    *,
    elsewhere: bool,
) -> None:
    after = os.environ.get("AFTER_MIGRATE")
    if not command and not after:
        logger.info("There is nothing to migrate")
        return
    found = await applied(connection) if revisions else []
    needed = bool(command) and (revisions is None or bool(missing(revisions, found)))
    if revisions and not revisions.known.issuperset(found):
        logger.warning(
            "The schema is at %s, this version needs %s and does not know that: it is newer, "
            "as after a rollback, or another app's, so nothing was migrated",
            *(spoken(found), spoken(revisions.heads)),
        )
    elif revisions and not needed:
        logger.info(
            "The schema is at %s, this version needs %s: fine",
            *(spoken(found), spoken(revisions.heads)),
        )
    if not needed and not after:
        return
    await _take_turn(connection)
    if elsewhere:
        # There the app may log in as the same role, whose settings stay as they are.
        asked = os.environ.get("PGOPTIONS", "")
        os.environ["PGOPTIONS"] = f"{asked} -c statement_timeout={STATEMENT_SECONDS}s".lstrip()
        path = [str(FOR_ASYNCPG), *filter(None, [os.environ.get("PYTHONPATH")])]
        os.environ["PYTHONPATH"] = os.pathsep.join(path)
        watcher = asyncio.create_task(_end_long_waits(connection))
    else:
        # For every driver: only a role's own settings reach them all.
        await connection.execute(f"ALTER ROLE CURRENT_USER SET lock_timeout = '{LOCK_SECONDS}s'")
        await connection.execute(
            f"ALTER ROLE CURRENT_USER SET statement_timeout = '{STATEMENT_SECONDS}s'"
        )
        watcher = None
    try:
        if needed:
            await asyncio.to_thread(_run, command)
        if after:
            await asyncio.to_thread(_run, ("sh", "-c", after))
    finally:
        if watcher:
            watcher.cancel()
            await asyncio.gather(watcher, return_exceptions=True)


async def _end_long_waits(connection: Connection) -> None:
    """End what waits too long for a table, as a lock_timeout would, whatever the driver.

    Of all sessions since our own, what changes a schema is known by the locks that it wants: those
    that stand in the way of reading or writing rows.
    """
    try:
        while True:
            await asyncio.sleep(0.2)
            await connection.execute(END_LONG_WAITS, LOCK_SECONDS)
    except ERRORS as error:
        logger.warning("No wait for a table is ended any more: %s", reason(error))


async def _take_turn(connection: Connection) -> None:
    """Return once no one else migrates, and none will until this connection closes."""
    if await connection.fetchval(f"SELECT pg_try_advisory_lock({LOCK_KEY})"):
        return
    logger.info("Another migration is running: waiting for it")
    try:
        await connection.execute(f"SET lock_timeout = '{TURN_SECONDS}s'")
        await connection.execute("SET statement_timeout = 0")  # the role has that for migrations
        await connection.execute(f"SELECT pg_advisory_lock({LOCK_KEY})")
    except asyncpg.LockNotAvailableError:
        raise MigrationError(
            f"Another migration has been running for {TURN_SECONDS} s: look at it, or end it."
        ) from None


def _run(command: tuple[str, ...]) -> None:
    """Run a command until it succeeds, or fails for another reason than a table in use."""
    tries_left = LOCK_TRIES
    while (output := _attempt(command)) is not None:
        tries_left -= 1
        if not (LOCK_TIMEOUT.search(output) and tries_left):
            raise MigrationError(_complaint(command, output))
        logger.warning("A table is in use, trying again (%d tries left)", tries_left)
        time.sleep(BREATH_SECONDS)


def _complaint(command: tuple[str, ...], output: bytes) -> str:
    text = output.decode(errors="replace").strip()
    said = COMPLAINT.findall(text) or text.splitlines() or ["it said nothing"]
    what = shlex.join(command[2:]) if command[0] == sys.executable else command[-1]
    return f"`{what}` failed: {' '.join(said[-1].split())}"


def _attempt(command: tuple[str, ...]) -> bytes | None:
    """Run a command, and show what it prints; return that if it fails, else None."""
    printed = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        assert process.stdout is not None  # noqa: S101 - for the type checker
        for line in process.stdout:
            sys.stdout.buffer.write(line)
            sys.stdout.flush()
            printed.append(line)
    return b"".join(printed) if process.returncode else None


if __name__ == "__main__":
    try:
        asyncio.run(main())
    except (MigrationError, DatabaseUnavailableError) as error:
        sys.exit(f"{error}")
