import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeAlias, TypeVar

import asyncpg
from starlette.requests import Request

from app.settings import Settings

logger = logging.getLogger(__name__)

# As a string: only the type stubs know that it is generic.
Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"
T = TypeVar("T")
Statement: TypeAlias = Callable[[Connection], Awaitable[T]]

# A request gets its answer, good or bad, within two seconds. The server gives up on a statement
# first, which leaves the connection intact; a server that does not even do that is gone.
STATEMENT_SECONDS = 1.5
ANSWER_SECONDS = 1.8
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
    """A few connections, with every way of not getting an answer turned into one error.

    Statements must leave no session state behind (SET, LISTEN, advisory locks, temporary
    tables): connections are used again as they are. asyncpg's own pool would make a task for
    each statement.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._turns = asyncio.Semaphore(settings.database_pool_size)
        self._idle: list[Connection] = []
        self._used = 0
        self._epoch = 0
        self._away = False

    def connections(self) -> tuple[int, int]:
        """How many connections are at work, and how many wait for some."""
        return self._used, len(self._idle)

    async def close(self) -> None:
        """Close every connection once what runs on it has ended; from now on nothing begins."""
        for _ in range(self._settings.database_pool_size):
            await self._turns.acquire()
        for connection in self._idle:
            await connection.close()

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
        async with self._turns:
            connection = await self._take()
            self._used += 1
            epoch = self._epoch
            try:
                return await run(connection, statement)
            except asyncio.CancelledError:
                self._expire(epoch)
                raise
            except ConnectionLostError:
                self._expire(epoch)
                if tries == 1:
                    raise
            finally:
                self._give_back(connection, epoch)
        return await self._attempt(statement, tries - 1)

    async def _take(self) -> Connection:
        """The connection that was used last, or a new one."""
        while self._idle:
            connection = self._idle.pop()
            if not connection.is_closed():
                return connection
        try:
            # To where PGHOST and its like lead.
            return await asyncpg.connect(
                timeout=ANSWER_SECONDS,
                server_settings={
                    "application_name": "berth-api",
                    "statement_timeout": f"{STATEMENT_SECONDS}s",
                },
            )
        except TimeoutError:
            raise
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            raise DatabaseUnavailableError(reason(error)) from error

    def _give_back(self, connection: Connection, epoch: int) -> None:
        self._used -= 1
        if epoch == self._epoch and not connection.is_closed():
            self._idle.append(connection)
        else:
            connection.terminate()

    def _expire(self, epoch: int) -> None:
        """Have all connections replaced that are as old as the one that ended or went silent.

        Its neighbours are likely to be as dead, and would each cost a request too.
        """
        if epoch == self._epoch:
            self._epoch += 1
            while self._idle:
                self._idle.pop().terminate()

    def _note(self, error: DatabaseUnavailableError) -> None:
        if not self._away:
            self._away = True
            logger.warning("the database is unavailable: %s", error)


async def run(connection: Connection, statement: Statement[T]) -> T:
    """Its result. Raises what the statement raises, unless that means a database gone away."""
    try:
        return await statement(connection)
    except asyncio.CancelledError:
        # Asking a server that may be gone to cancel would be one more wait.
        connection.terminate()
        raise
    except asyncpg.QueryCanceledError as error:
        raise DatabaseUnavailableError(reason(error)) from error
    except GOODBYES as error:
        connection.terminate()
        raise ConnectionLostError(reason(error)) from error
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        if connection.is_closed():
            raise ConnectionLostError(reason(error)) from error
        raise


def reason(error: BaseException) -> str:
    return str(error) or type(error).__name__


@asynccontextmanager
async def open_database(settings: Settings) -> AsyncIterator[Database]:
    database = Database(settings)
    try:
        yield database
    finally:
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                await database.close()
        except TimeoutError:
            logger.warning("statements were still running: their connections are cut")


async def get_database(request: Request) -> Database:
    # A coroutine, since FastAPI would run a plain function in a thread.
    database: Database = request.state.database
    return database
