import time
from collections.abc import Awaitable
from dataclasses import dataclass

from starlette.types import ASGIApp, Message, Receive, Scope, Send


@dataclass
class Lifecycle:
    """What the server knows and the app must: whether this replica is on its way out."""

    draining: bool = False
    # When somebody last sent a request while draining, by the monotonic clock.
    late_request: float = 0.0
    # How many have come, without those by which others ask how it is.
    requests: int = 0


# Asked by whoever watches this replica, whether or not it is still sent requests.
CHECKS = {"/livez", "/readyz"}


class CloseWhileDraining:
    """Makes every answer given while draining the last one on its connection.

    A client that keeps its connection would otherwise be cut off in the middle of a next
    request when the server stops.
    """

    def __init__(self, app: ASGIApp, lifecycle: Lifecycle) -> None:
        self.app = app
        self.lifecycle = lifecycle

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope.get("path") not in CHECKS:
            self.lifecycle.requests += scope["type"] != "lifespan"
            if self.lifecycle.draining:
                self.lifecycle.late_request = time.monotonic()

        def send_closing(message: Message) -> Awaitable[None]:
            if self.lifecycle.draining and message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), (b"connection", b"close")]
            return send(message)

        await self.app(scope, receive, send_closing if scope["type"] == "http" else send)
