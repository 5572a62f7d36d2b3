"""Keeps WebSockets open: `sockets.py URL COUNT ADDRESSES`, echoed by the server.

They come from so many addresses of the loopback network, and connect again at once when they are
closed, or a second after they were refused. For each line on standard input, every open one sends a
message and waits for its echo; then a line of JSON says how many were echoed, and what has come of
all so far.
"""

import asyncio
import json
import ssl
import sys
import time
from collections import Counter

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException

REFUSED_SECONDS = 1
# Longer than a thousand handshakes at once take.
PATIENCE_SECONDS = 60
# At a time, as many as a listener's queue takes.
AT_ONCE = 100
MESSAGE = "a message like any other"


class Clients:
    """All of them, and what they have seen."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.trust = ssl._create_unverified_context()  # noqa: S323, SLF001 - it certifies itself
        self.turn = asyncio.Semaphore(AT_ONCE)
        self.open: set[ClientConnection] = set()
        self.closed: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()
        self.away: list[float] = []

    async def keep_open(self, address: str) -> None:
        """Have a connection of an address open, whatever comes."""
        closed_at = 0.0
        while True:
            try:
                async with self.turn:
                    connection = await connect(
                        self.url,
                        ssl=self.trust,
                        host="127.0.0.1",
                        port=443,
                        local_addr=(address, 0),
                        compression=None,
                        open_timeout=PATIENCE_SECONDS,
                        ping_interval=None,  # the server asks
                    )
            except InvalidStatus as error:
                self.refused[str(error.response.status_code)] += 1
                await asyncio.sleep(REFUSED_SECONDS)
                continue
            except (OSError, WebSocketException) as error:
                self.refused[type(error).__name__] += 1
                await asyncio.sleep(REFUSED_SECONDS)
                continue
            self.open.add(connection)
            if closed_at:
                self.away.append(time.monotonic() - closed_at)
            await connection.wait_closed()
            self.open.discard(connection)
            self.closed[str(connection.close_code)] += 1
            closed_at = time.monotonic()

    async def echoed(self, connection: ClientConnection) -> bool:
        """Whether a message comes back."""
        try:
            await connection.send(MESSAGE)
            return await asyncio.wait_for(connection.recv(), PATIENCE_SECONDS) == MESSAGE
        except (ConnectionClosed, TimeoutError):
            return False

    async def tell(self) -> dict[str, object]:
        """Try all, and say what has come so far."""
        echoed = sum(await asyncio.gather(*map(self.echoed, list(self.open))))
        away = sorted(self.away) or [0.0]
        return {
            "open": len(self.open),
            "echoed": echoed,
            "refused": dict(self.refused),
            "closed": dict(self.closed),
            "away_seconds": [round(away[len(away) // 2], 2), round(away[-1], 2)],
        }


async def run(url: str, count: int, addresses: int) -> None:
    clients = Clients(url)
    numbers = (number % addresses for number in range(count))
    tasks = [
        asyncio.create_task(clients.keep_open(f"127.1.{number // 250}.{number % 250 + 1}"))
        for number in numbers
    ]
    while await asyncio.to_thread(sys.stdin.readline):
        print(json.dumps(await clients.tell()), flush=True)
    for task in tasks:
        task.cancel()


if __name__ == "__main__":
    asyncio.run(run(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
