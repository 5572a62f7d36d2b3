"""What Berth's wrapper costs, and counting a request: `.venv/bin/python -m benchmarks.metrics`.

The app answers the same requests with and without a part around it, in turn, in this one
process and without network or database, which only make the share smaller: so it is the most that
it can be of what a replica spends on a request.
"""

import asyncio
import gc
import os
import statistics
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from uuid import UUID, uuid4

import prometheus_client
from starlette.types import ASGIApp, Message, Scope

from app.dependencies import get_connection
from app.main import app as example
from berth.lifecycle import Lifecycle
from berth.metrics import Metrics, MetricsMiddleware
from berth.settings import load_settings
from berth.wrap import wrap

ROUNDS = 400
REQUESTS = 100
SCRAPES = 200

NOW = datetime.now(UTC)
ROW = {
    "id": uuid4(),
    "name": "a row",
    "description": None,
    "quantity": 1,
    "created_at": NOW,
    "updated_at": NOW,
}


class Memory:
    """A connection to a table of one row."""

    async def fetchrow(self, _query: str, _item_id: UUID) -> dict[str, object]:
        return ROW


async def get_memory() -> AsyncIterator[Memory]:
    yield Memory()


def scope() -> Scope:
    """Return a GET of the row, as uvicorn makes it."""
    path = f"/items/{ROW['id']}"
    headers = [(b"host", b"localhost"), (b"accept", b"*/*"), (b"x-forwarded-proto", b"https")]
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "https",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": headers,
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 8000),
        "state": {},
    }


async def receive() -> Message:
    return {"type": "http.request", "body": b"", "more_body": False}


async def send(message: Message) -> None:
    assert message.get("status", 200) == 200, message  # noqa: S101


async def cost_us(app: ASGIApp) -> float:
    """Return the processor time of a request, in µs."""
    began = time.process_time()
    for _ in range(REQUESTS):
        await app(scope(), receive, send)
    return (time.process_time() - began) / REQUESTS * 1e6


async def compare(outer: ASGIApp, inner: ASGIApp) -> tuple[float, float, float]:
    """Return the cost of a request to `inner`, what `outer` adds, and its standard error, in µs."""
    for app in (outer, inner):
        await cost_us(app)
    pairs = []
    for number in range(ROUNDS):
        apps = (outer, inner) if number % 2 else (inner, outer)
        costs = {app: await cost_us(app) for app in apps}
        pairs.append((costs[inner], costs[outer] - costs[inner]))
    without, added = zip(*pairs, strict=True)
    lower, _, upper = statistics.quantiles(added, n=4)
    error = 0.93 * (upper - lower) / ROUNDS**0.5
    return statistics.median(without), statistics.median(added), error


def main() -> None:
    """Measure and print."""
    for workers in (1, 4):
        os.environ.pop("PROMETHEUS_MULTIPROC_DIR", None)
        settings = load_settings({"API_WORKERS": f"{workers}"})
        metrics = Metrics(settings)
        example.dependency_overrides[get_connection] = get_memory
        app: ASGIApp = example.build_middleware_stack()
        gc.freeze()
        for what, outer in (
            ("counting", MetricsMiddleware(app, metrics)),
            ("all of the wrapper", wrap(app, settings, Lifecycle(), metrics)),
        ):
            without, added, error = asyncio.run(compare(outer, app))
            print(
                f"API_WORKERS={workers}, {what}: {added:.1f} ± {error:.1f} µs on top of "
                f"{without:.0f} µs, {added / without:.1%}"
            )
        exposed = metrics.exposed
        began = time.process_time()
        for _ in range(SCRAPES):
            size = len(prometheus_client.generate_latest(exposed))
        print(f"  a scrape: {(time.process_time() - began) / SCRAPES * 1e3:.2f} ms, {size:,} bytes")


if __name__ == "__main__":
    main()
