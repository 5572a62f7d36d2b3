"""A steady load from a client that forgets nothing: what was asked, answered, refused, lost."""

import asyncio
import contextlib
import itertools
import json
import random
import socket
import ssl
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

import aiohttp

from tests.stack.stack import Stack

TIMEOUT_SECONDS = 40
ROWS = "SELECT json_agg(json_build_array(name, id)) FROM items"
KEPT_ALIVE = 16


@dataclass(frozen=True)
class Outcome:
    """How one request ended.

    Attributes:
        method: GET or POST.
        at: When it was due, in seconds of the monotonic clock.
        seconds: How long it took from then.
        result: The status, or the name of the error.
        refused: Whether it was a 503 that said when to come back.
    """

    method: str
    at: float
    seconds: float
    result: int | str
    refused: bool

    @property
    def lost(self) -> bool:
        """Whether a client would call it failed."""
        return self.result not in (200, 201)


@dataclass
class Load:
    """What a load has seen; grows while it runs."""

    outcomes: list[Outcome] = field(default_factory=list)
    sent: set[str] = field(default_factory=set)
    acknowledged: dict[str, str] = field(default_factory=dict)
    marks: list[float] = field(default_factory=list)
    prefix: str = field(default_factory=lambda: f"load-{time.time_ns()}-")

    def mark(self) -> None:
        """Note that the event begins now."""
        self.marks.append(time.monotonic())

    def lost(self, method: str) -> list[Outcome]:
        """Return the requests of a method that failed."""
        return [o for o in self.outcomes if o.method == method and o.lost]

    def why(self) -> dict[str, int]:
        """Return how often each method failed in each way."""
        return dict(Counter(f"{o.method} {o.result}" for o in self.outcomes if o.lost))

    @property
    def slowest(self) -> float:
        """The longest that any request took, in seconds."""
        return max(outcome.seconds for outcome in self.outcomes)

    @property
    def rate(self) -> float:
        """Requests per second over the whole load."""
        span = max(o.at for o in self.outcomes) - min(o.at for o in self.outcomes)
        return len(self.outcomes) / span

    @property
    def recovery(self) -> float:
        """Seconds from the event to the last request that failed or took over a second."""
        trouble = [o.at + o.seconds for o in self.outcomes if o.lost or o.seconds > 1]
        return max(0.0, max(trouble, default=0.0) - self.marks[0]) if self.marks else 0.0


@contextlib.contextmanager
def steady_load(stack: Stack, *, rate: int = 300) -> Iterator[Load]:
    """Send requests at a steady rate for as long as the context lasts.

    Seven in ten are GETs of a row, two are POSTs, one is a GET of 300 ms; a tenth of all go over a
    connection of their own. A request is due at its time, whether or not others have ended.

    Args:
        stack: Where to; it must have the faults' endpoints.
        rate: Requests per second.
    """
    load = Load()
    ended = threading.Event()
    failure: list[BaseException] = []

    def run() -> None:
        try:
            asyncio.run(_send(stack, load, rate, ended))
        except BaseException as error:  # noqa: BLE001 - it is raised where the load was started
            failure.append(error)

    thread = threading.Thread(target=run, name="load")
    thread.start()
    try:
        _await_steady(load, thread)
        yield load
    finally:
        ended.set()
        thread.join()
    if failure:
        raise failure[0]


@contextlib.contextmanager
def http2_load(stack: Stack, became: list[str]) -> Iterator[None]:
    """Send a request every 20 ms over HTTP/2, on a connection that is kept while it may be.

    Args:
        stack: Where to.
        became: Where it is put at the end what became of each: `200 2` if all is well.
    """
    authority = f"{stack.domain}:{stack.https_port}"
    command = [
        *("curl", "--silent", "--http2", "--rate", "50/s", "--cacert", str(stack.root)),
        *("--resolve", f"{authority}:127.0.0.1", "--output", "/dev/null"),
        *("--write-out", "%{stderr}%{http_code} %{http_version} %{errormsg}\\n"),
        f"https://{authority}/livez?[1-100000]",
    ]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as client:
        try:
            yield
        finally:
            client.terminate()
            became += [line.strip() for line in client.communicate()[1].splitlines()]


def assert_stored_once(stack: Stack, load: Load) -> None:
    """Every POST that was answered 201 has its row, and every row is of one POST that was sent."""
    psql = ("psql", "--dbname=berth", "--tuples-only", "--no-align", f"--command={ROWS}")
    assert_among(json.loads(stack.compose("exec", "-T", "db", *psql)), load)


def assert_among(pairs: list[list[str]], load: Load) -> None:
    """The same of rows that somebody has read."""
    rows = {name: one for name, one in pairs}  # noqa: C416
    assert len(rows) == len(pairs), "a POST was carried out twice"
    lost = load.acknowledged.items() - rows.items()
    assert not lost, f"acknowledged and lost: {lost}"
    stray = {row for row in rows if row.startswith(load.prefix)} - load.sent
    assert not stray, f"stored and never sent: {stray}"


def _await_steady(load: Load, thread: threading.Thread) -> None:
    deadline = time.monotonic() + 10
    while len(load.outcomes) < 100 and thread.is_alive():
        assert time.monotonic() < deadline, "the load did not start"
        time.sleep(0.05)


async def _send(stack: Stack, load: Load, rate: int, ended: threading.Event) -> None:
    trust = ssl.create_default_context(cafile=str(stack.root))
    opened: list[socket.socket] = []

    def open_one(address: aiohttp.AddrInfoType) -> socket.socket:
        opened.append(socket.socket(*address[:3]))
        return opened[-1]

    kept = aiohttp.TCPConnector(limit=KEPT_ALIVE * 8, ssl=trust, socket_factory=open_one)
    fresh = aiohttp.TCPConnector(limit=0, force_close=True, ssl=trust, socket_factory=open_one)
    timeout = aiohttp.ClientTimeout(total=TIMEOUT_SECONDS)
    chance = random.Random(7)  # noqa: S311 - the same mix every time
    async with (
        aiohttp.ClientSession(connector=kept, timeout=timeout) as on_kept,
        aiohttp.ClientSession(connector=fresh, timeout=timeout) as on_fresh,
        asyncio.TaskGroup() as tasks,
    ):
        sender = _Sender(stack, load)
        await sender.post(on_kept, time.monotonic())
        start = time.monotonic()
        for number in itertools.count():
            due = start + number / rate
            await asyncio.sleep(due - time.monotonic())
            if ended.is_set():
                break
            session = on_fresh if chance.random() < 0.1 else on_kept
            kind = chance.random()
            if kind < 0.2:
                tasks.create_task(sender.post(session, due))
            elif kind < 0.3:
                tasks.create_task(sender.get(session, due, "/sleep/0.3"))
            else:
                tasks.create_task(sender.get(session, due, f"/items/{sender.some_id(chance)}"))
    # TLS takes a moment to say goodbye, and the event loop must not end before.
    async with asyncio.timeout(TIMEOUT_SECONDS):
        while any(one.fileno() != -1 for one in opened):  # noqa: ASYNC110 - no event says so
            await asyncio.sleep(0.01)


class _Sender:
    def __init__(self, stack: Stack, load: Load) -> None:
        self._stack = stack
        self._load = load
        self._ids: list[str] = []
        self._names = itertools.count()

    def some_id(self, chance: random.Random) -> str:
        return chance.choice(self._ids[-1000:])

    async def get(self, session: aiohttp.ClientSession, due: float, path: str) -> None:
        await self._request(session, due, "GET", path)

    async def post(self, session: aiohttp.ClientSession, due: float) -> None:
        name = f"{self._load.prefix}{next(self._names)}"
        self._load.sent.add(name)
        answer = await self._request(session, due, "POST", "/items", {"name": name})
        if answer:
            self._load.acknowledged[name] = answer["id"]
            self._ids.append(answer["id"])

    async def _request(
        self,
        session: aiohttp.ClientSession,
        due: float,
        method: str,
        path: str,
        body: dict[str, str] | None = None,
    ) -> dict[str, str] | None:
        answer = None
        result: int | str
        refused = False
        try:
            async with session.request(
                method,
                self._stack.url(path),
                json=body,
                headers=self._stack.headers,
                server_hostname=self._stack.domain,
            ) as response:
                result = response.status
                refused = result == 503 and "Retry-After" in response.headers
                await response.read()
                if result == 201:
                    answer = await response.json()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            result = type(error).__name__
        self._load.outcomes.append(Outcome(method, due, time.monotonic() - due, result, refused))
        return answer
