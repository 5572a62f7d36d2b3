from dataclasses import dataclass

from starlette.types import ASGIApp, Message, Receive, Scope, Send


@dataclass
class Lifecycle:
    """What the server knows and the app must: whether this replica is on its way out."""

    draining: bool = False


class CloseWhileDraining:
    """Makes every answer given while draining the last one on its connection.

    A client that keeps its connection would otherwise be cut off in the middle of a next
    request when the server stops.
    """

    def __init__(self, app: ASGIApp, lifecycle: Lifecycle) -> None:
        self.app = app
        self.lifecycle = lifecycle

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_closing(message: Message) -> None:
            if self.lifecycle.draining and message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), (b"connection", b"close")]
            await send(message)

        await self.app(scope, receive, send_closing if scope["type"] == "http" else send)
