"""Turns the 500 of a database that is away into 503, and keeps any other from costing more.

And says the way out where an app makes its tables when it starts, which its role may not.

By the class and the SQLSTATE of the error, however many others are wrapped around it, so that
neither a driver nor a framework need be imported here.
https://www.postgresql.org/docs/current/errcodes-appendix.html
"""

import logging
import time
from collections.abc import Awaitable, Iterator

from .asgi import RETRY_AFTER, Answer, ASGIApp, Message, Receive, Scope, Send

logger = logging.getLogger(__name__)

DRIVERS = ("asyncpg", "psycopg", "psycopg2", "psycopg_pool", "pg8000", "sqlalchemy")
# Connection exceptions; and what an administrator, a crash, a failover, a limit on connections or
# on a statement's time say.
SQLSTATE_CLASS = "08"
SQLSTATES = frozenset({"57P01", "57P02", "57P03", "57P05", "57014", "53300", "55P03", "25006"})
INSUFFICIENT_PRIVILEGE = "42501"
# Errors without an SQLSTATE, by the name of their class, that mean a connection whenever a driver
# raises them.
CONNECTION_ERRORS = frozenset(
    {"InternalClientError", "ConnectionDoesNotExistError", "OperationalError", "PoolTimeout"}
)
# The same name is given to misuse: only with these words.
INTERFACE_ERRORS = frozenset({"InterfaceError"})
INTERFACE_WORDS = ("connection is closed", "closed the connection", "pool is clos")
# Of Python itself, where a driver raised them.
SYSTEM_ERRORS = (OSError, TimeoutError)

QUIET_SECONDS = 10
MAX_HELD_BYTES = 2**16


class OutageMiddleware:
    """Holds a 500 back until the app has returned or raised, and answers 503 where that fits.

    Starlette sends its 500 and then raises the error again. Raised on from here, it would cost
    the connection, which other requests are to use: it is logged instead.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self._warned = -float(QUIET_SECONDS)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._live(scope, receive, send)
            return
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        answering = _Answering(send)
        try:
            await self.app(scope, receive, answering.send)
        except Exception as error:
            if answering.begun and not answering.complete:
                raise
            away = unavailable(error)
            if away and not answering.begun:
                self._warn(away)
                await UNAVAILABLE(scope, receive, send)
                return
            logger.exception("%s %s failed", scope["method"], scope["path"])
            if not (answering.held or answering.begun):
                await FAILED(scope, receive, send)
                return
        await answering.send_held()

    async def _live(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self.app(scope, receive, send)
        except Exception as error:
            if said := forbidden(error):
                logger.critical("%s", said)
            raise

    def _warn(self, error: BaseException) -> None:
        now = time.monotonic()
        if now - self._warned >= QUIET_SECONDS:
            logger.warning("the database is unavailable: %s", str(error) or type(error).__name__)
        self._warned = now


class _Answering:
    """Passes an answer on, but holds one back that is a 500.

    Attributes:
        begun: Whether something of it was passed on.
        complete: Whether all of it was.
        held: What was not.
    """

    def __init__(self, send: Send) -> None:
        self._send = send
        self.begun = self.complete = False
        self.held: list[Message] = []
        self._size = 0

    def send(self, message: Message) -> Awaitable[None]:
        if message["type"] == "http.response.start":
            self.begun = message["status"] != 500
        elif self.begun:
            self.complete = not message.get("more_body", False)
        if self.begun:
            return self._send(message)
        self.held.append(message)
        self._size += len(message.get("body", b""))
        return self.send_held() if self._size > MAX_HELD_BYTES else _nothing()

    async def send_held(self) -> None:
        """Pass on what was held back, if anything was."""
        self.begun = True
        while self.held:
            await self._send(self.held.pop(0))


async def _nothing() -> None:
    pass


# The reason is in the log; it may name hosts, which are nobody else's business.
UNAVAILABLE = Answer(503, {"detail": "The database is unavailable, try again."}, RETRY_AFTER)
FAILED = Answer(500, {"detail": "Internal Server Error"})


def unavailable(error: BaseException) -> BaseException | None:
    """Return the error in a chain of them that says that the database is away, if there is one."""
    return next((one for one in _chain(error) if _means_away(one)), None)


def forbidden(error: BaseException) -> str | None:
    """Return what the app's role may not do and the way out, if that is what an error says."""
    for one in _chain(error):
        if _sqlstate(one) == INSUFFICIENT_PRIVILEGE:
            return (
                f"{str(one).splitlines()[0]}: the app reads and writes rows, and makes no tables. "
                "If it does so when it starts, have that done before, by a line in .env: "
                """MIGRATE=python -c "import main; main.create_tables()", or what it calls them"""
            )
    return None


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an error, and those that it was raised from or wraps."""
    seen: set[int] = set()
    left: list[object] = [error]
    while left:
        one = left.pop(0)
        if not isinstance(one, BaseException) or id(one) in seen:
            continue
        seen.add(id(one))
        yield one
        left += [getattr(one, "orig", None), one.__cause__]
        if not one.__suppress_context__:
            left.append(one.__context__)
        left += getattr(one, "exceptions", ())


def _means_away(error: BaseException) -> bool:
    state = _sqlstate(error)
    if state:
        return state.startswith(SQLSTATE_CLASS) or state in SQLSTATES
    if isinstance(error, SYSTEM_ERRORS) and _package(type(error)) not in DRIVERS:
        return _raised_by_driver(error)
    if _package(type(error)) not in DRIVERS:
        return False
    if getattr(error, "orig", None) is not None:
        return False  # what it wraps says more
    names = {kind.__name__ for kind in type(error).__mro__ if _package(kind) in DRIVERS}
    if names & INTERFACE_ERRORS and not names & CONNECTION_ERRORS:
        return any(words in str(error) for words in INTERFACE_WORDS)
    return bool(names & CONNECTION_ERRORS) or type(error).__name__ == "TimeoutError"


def _sqlstate(error: BaseException) -> str | None:
    found = getattr(error, "sqlstate", None) or getattr(error, "pgcode", None)
    return found if isinstance(found, str) else None


def _package(kind: type) -> str:
    return kind.__module__.partition(".")[0]


def _raised_by_driver(error: BaseException) -> bool:
    """Whether a driver's code is among the frames that an error went through."""
    traceback = error.__traceback__
    while traceback:
        if traceback.tb_frame.f_globals.get("__name__", "").partition(".")[0] in DRIVERS:
            return True
        traceback = traceback.tb_next
    return False
