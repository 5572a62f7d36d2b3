import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, TypeAlias, TypeVar

import asyncpg
from asyncpg.pool import PoolConnectionProxy
from starlette.requests import Request

from app.settings import Settings

logger = logging.getLogger(__name__)

# As strings: only the type stubs know that these are generic.
Pool: TypeAlias = "asyncpg.Pool[asyncpg.Record]"
PooledConnection: TypeAlias = "PoolConnectionProxy[asyncpg.Record]"
Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"
T = TypeVar("T")
Statement: TypeAlias = Callable[[PooledConnection], Awaitable[T]]

# A request gets its answer, good or bad, within two seconds. The server gives up on a statement
# first, which leaves the connection intact; a server that does not even do that is gone.
STATEMENT_SECONDS = 1.5
ANSWER_SECONDS = 1.8
START_SECONDS = 60
CLOSE_SECONDS = 2

# How a connection ends under a statement. The last one is asyncpg's surprise at a goodbye that
# arrived between two statements: it refuses to send on that connection.
GOODBYES = (
    asyncpg.PostgresConnectionError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.CannotConnectNowError,
    asyncpg.IdleSessionTimeoutError,
    asyncpg.InternalClientError,
)


class DatabaseUnavailableError(Exception):
    """The database cannot be reached, or did not answer in time. Says why."""


class ConnectionLostError(DatabaseUnavailableError):
    """A connection ended under a statement, which may or may not have been carried out."""


class Database:
    """The pool, with every way of not getting an answer turned into one error.

    Statements must leave no session state behind (SET, LISTEN, advisory locks, temporary
    tables): connections go back to the pool as they are.
    """

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._epoch = 0
        self._away = False

    def connections(self) -> tuple[int, int]:
        """How many of the pool's connections are at work, and how many wait for some."""
        idle = self._pool.get_idle_size()
        return self._pool.get_size() - idle, idle

    async def read_one(self, query: str, *args: object) -> asyncpg.Record | None:
        """The first row, or None. Tried once more if its connection turns out to be dead."""
        return await self._answer(lambda connection: connection.fetchrow(query, *args), tries=2)

    async def read_all(self, query: str, *args: object) -> list[asyncpg.Record]:
        """Every row. Tried once more if its connection turns out to be dead."""
        return await self._answer(lambda connection: connection.fetch(query, *args), tries=2)

    async def write(self, query: str, *args: object) -> list[asyncpg.Record]:
        """The rows that RETURNING yields. Sent at most once, so that nothing is doubled."""
        return await self._answer(lambda connection: connection.fetch(query, *args), tries=1)

    async def _answer(self, statement: Statement[T], *, tries: int) -> T:
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                result = await self._attempt(statement, tries)
        except TimeoutError:
            silence = DatabaseUnavailableError("no answer in time")
            self._note(silence)
            raise silence from None
        except DatabaseUnavailableError as error:
            self._note(error)
            raise
        if self._away:
            self._away = False
            logger.info("the database is back")
        return result

    async def _attempt(self, statement: Statement[T], tries: int) -> T:
        epoch = self._epoch
        connection = await self._acquire()
        try:
            return await run(connection, statement)
        except asyncio.CancelledError:
            await self._expire(epoch)
            raise
        except ConnectionLostError:
            await self._expire(epoch)
            if tries == 1:
                raise
        finally:
            await self._pool.release(connection)
        return await self._attempt(statement, tries - 1)

    async def _acquire(self) -> PooledConnection:
        try:
            return await self._pool.acquire()
        except TimeoutError:
            raise
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            raise DatabaseUnavailableError(reason(error)) from error

    async def _expire(self, epoch: int) -> None:
        """Have all connections replaced that are as old as the one that ended or went silent.

        Its neighbours are likely to be as dead, and would each cost a request too.
        """
        if epoch == self._epoch:
            self._epoch += 1
            await self._pool.expire_connections()

    def _note(self, error: DatabaseUnavailableError) -> None:
        if not self._away:
            self._away = True
            logger.warning("the database is unavailable: %s", error)


async def run(connection: PooledConnection, statement: Statement[T]) -> T:
    """Its result. Raises what the statement raises, unless that means a database gone away."""
    try:
        return await statement(connection)
    except asyncio.CancelledError:
        # Asking a server that may be gone to cancel would be one more wait.
        end(connection)
        raise
    except asyncpg.QueryCanceledError as error:
        raise DatabaseUnavailableError(reason(error)) from error
    except GOODBYES as error:
        end(connection)
        raise ConnectionLostError(reason(error)) from error
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        if ended(connection):
            raise ConnectionLostError(reason(error)) from error
        raise


def end(connection: PooledConnection) -> None:
    if not ended(connection):
        connection.terminate()


def ended(connection: PooledConnection) -> bool:
    try:
        return connection.is_closed()
    except asyncpg.InterfaceError:
        # The pool has seen the end first and taken it back.
        return True


def reason(error: BaseException) -> str:
    return str(error) or type(error).__name__


async def log_in(settings: Settings, *where: Any, **options: Any) -> Connection:  # noqa: ANN401
    """A connection by the password that is valid now, even if it changes at this very moment."""
    refused: set[str] = set()
    while True:
        passwords = [one for one in settings.database_passwords() if one not in refused]
        try:
            return await asyncpg.connect(*where, password=passwords[0], **options)
        except asyncpg.InvalidPasswordError:
            refused.add(passwords[0])
            if refused.issuperset(settings.database_passwords()):
                raise


async def connect(settings: Settings) -> Connection:
    """A connection outside any pool, as soon as the database accepts one.

    Raises DatabaseUnavailableError after START_SECONDS, with the last reason.
    """
    where = f"{settings.database_host}:{settings.database_port}"
    deadline = asyncio.get_running_loop().time() + START_SECONDS
    last = ""
    while True:
        try:
            return await log_in(
                settings,
                host=settings.database_host,
                port=settings.database_port,
                user=settings.database_user,
                database=settings.database_name,
                timeout=ANSWER_SECONDS,
            )
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
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


async def _leave_as_is(_: Connection) -> None:
    """In place of asyncpg's reset, which would cost every request a second round trip."""


@asynccontextmanager
async def open_database(settings: Settings) -> AsyncIterator[Database]:
    pool = asyncpg.create_pool(
        connect=partial(log_in, settings),
        host=settings.database_host,
        port=settings.database_port,
        user=settings.database_user,
        database=settings.database_name,
        init_size=1,
        # Above 0, asyncpg would itself reconnect in the background and log a traceback per try.
        min_size=0,
        max_size=settings.database_pool_size,
        reset=_leave_as_is,
        timeout=ANSWER_SECONDS,
        server_settings={
            "application_name": "berth-api",
            "statement_timeout": f"{STATEMENT_SECONDS}s",
        },
    )
    await pool
    try:
        yield Database(pool)
    finally:
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                await pool.close()
        except TimeoutError:
            logger.warning("statements were still running: their connections are cut")


async def get_database(request: Request) -> Database:
    # A coroutine, since FastAPI would run a plain function in a thread.
    database: Database = request.state.database
    return database
