"""Row reads at a given rate, answered or not: `steady.py URL RATE SECONDS`.

wrk only asks again once it has its answer, so that a slow server is asked less and looks better
than it is. Here each request is due at its time, as if users came by themselves, and its latency
counts from then, the wait for a free connection included. Prints a line of JSON.
"""

import asyncio
import collections
import gc
import json
import random
import ssl
import sys
import time
from typing import cast
from urllib.parse import urlsplit

import uvloop

CONNECTIONS = 64
ROWS = 10_000
GRACE_SECONDS = 5


class Client:
    """The requests that are due, the connections that are free, and what came of it."""

    def __init__(self, host: str) -> None:
        self.head = f" HTTP/1.1\r\nHost: {host}\r\n\r\n"
        self.free: collections.deque[Connection] = collections.deque()
        self.due: collections.deque[tuple[float, bytes]] = collections.deque()
        self.latencies: list[float] = []
        self.failed = 0

    def ask(self, at: float, path: str) -> None:
        self.due.append((at, f"GET {path}{self.head}".encode()))
        self.pump()

    def pump(self) -> None:
        while self.due and self.free:
            self.free.popleft().send(*self.due.popleft())


class Connection(asyncio.Protocol):
    def __init__(self, client: Client) -> None:
        self.client = client
        self.answer = b""
        self.at = 0.0
        self.asked = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.client.free.append(self)

    def send(self, at: float, request: bytes) -> None:
        self.at, self.asked, self.answer = at, True, b""
        self.transport.write(request)

    def data_received(self, data: bytes) -> None:
        self.answer += data
        head, found, body = self.answer.partition(b"\r\n\r\n")
        length = head.lower().partition(b"content-length:")[2].partition(b"\r")[0]
        if found and len(body) >= int(length or 0):
            self.asked = False
            self.client.latencies.append(time.monotonic() - self.at)
            self.client.failed += not head.startswith(b"HTTP/1.1 200")
            self.client.free.append(self)
            self.client.pump()

    def connection_lost(self, _error: Exception | None) -> None:
        self.client.failed += self.asked
        if self in self.client.free:
            self.client.free.remove(self)


async def run(url: str, rate: float, seconds: float) -> dict[str, float]:
    parts = urlsplit(url)
    trust = ssl._create_unverified_context() if parts.scheme == "https" else None  # noqa: S323, SLF001
    host = parts.hostname or "localhost"
    client = Client(parts.netloc)
    loop = asyncio.get_running_loop()
    for _ in range(CONNECTIONS):
        await loop.create_connection(
            lambda: Connection(client),
            host,
            parts.port or 443,
            ssl=trust,
            server_hostname=host if trust else None,
        )
    gc.freeze()
    gc.disable()
    chance = random.Random(7)  # noqa: S311 - the same arrivals every time
    asked = 0
    at = time.monotonic()
    end = at + seconds
    while at < end:
        await asyncio.sleep(at - time.monotonic())
        asked += 1
        client.ask(at, f"/items/00000000-0000-7000-8000-{chance.randint(1, ROWS):012x}")
        at += chance.expovariate(rate)
    deadline = time.monotonic() + GRACE_SECONDS
    while len(client.latencies) < asked and time.monotonic() < deadline:  # noqa: ASYNC110
        await asyncio.sleep(0.05)
    times = sorted(client.latencies)
    return {
        "requests": asked,
        "seconds": seconds,
        "p50_ms": times[len(times) // 2] * 1e3,
        "p99_ms": times[len(times) * 99 // 100] * 1e3,
        "failed": client.failed + max(0, asked - len(times)),
    }


if __name__ == "__main__":
    print(json.dumps(uvloop.run(run(sys.argv[1], float(sys.argv[2]), float(sys.argv[3])))))
