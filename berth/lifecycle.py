"""Where a replica is between its start and its end."""

import time
from collections.abc import Awaitable
from dataclasses import dataclass

from .asgi import ASGIApp, Message, Receive, Scope, Send
from .probes import PATHS


@dataclass
class Lifecycle:
    """What the server knows and others must: whether this replica is on its way out.

    Attributes:
        draining: Whether it is.
        late_request: When somebody last sent a request while draining, by the monotonic clock.
        requests: How many requests were served, probes not counted.
    """

    draining: bool = False
    late_request: float = 0.0
    requests: int = 0


class LifecycleMiddleware:
    """Counts requests, and makes every answer given while draining the last on its connection.

    A client that keeps its connection would otherwise be cut off in the middle of a next
    request when the server stops.
    """

    def __init__(self, app: ASGIApp, lifecycle: Lifecycle) -> None:
        self.app = app
        self.lifecycle = lifecycle

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        lifecycle = self.lifecycle
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["path"] not in PATHS:
            lifecycle.requests += 1
            if lifecycle.draining:
                lifecycle.late_request = time.monotonic()

        def send_closing(message: Message) -> Awaitable[None]:
            if lifecycle.draining and message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), (b"connection", b"close")]
            return send(message)

        await self.app(scope, receive, send_closing if scope["type"] == "http" else send)
