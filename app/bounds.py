from collections.abc import Awaitable

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

# As long as common servers and browsers go; behind it a proxy bounds all headers together.
MAX_URL_BYTES = 8192

ALWAYS_SERVED = {"/livez", "/readyz"}
WITHOUT_BODY = {"GET", "HEAD", "DELETE", "OPTIONS"}


class Bounds:
    """Refuses addresses that are too long, and more requests at once than this process can serve.

    A request is in hand from when all of it is there until its answer begins. So neither slow
    clients nor long streams count, and the health checks are served in time whatever comes.
    """

    def __init__(self, app: ASGIApp, max_in_flight: int) -> None:
        self.app = app
        self.max_in_flight = max_in_flight
        self.in_flight = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in ALWAYS_SERVED:
            await self.app(scope, receive, send)
            return
        if len(scope["raw_path"]) + len(scope["query_string"]) > MAX_URL_BYTES:
            await URL_TOO_LONG(scope, receive, send)
            return
        if self.in_flight >= self.max_in_flight:
            await TOO_MANY(scope, receive, send)
            return

        begun = False
        in_hand = scope["method"] in WITHOUT_BODY
        self.in_flight += in_hand

        async def receive_all() -> Message:
            nonlocal in_hand
            message = await receive()
            if not (in_hand or begun or message.get("more_body", False)):
                in_hand = True
                self.in_flight += 1
            return message

        def send_first(message: Message) -> Awaitable[None]:
            nonlocal begun, in_hand
            begun = True
            self.in_flight -= in_hand
            in_hand = False
            return send(message)

        try:
            await self.app(scope, receive if in_hand else receive_all, send_first)
        finally:
            self.in_flight -= in_hand


URL_TOO_LONG = JSONResponse({"detail": f"The URL exceeds {MAX_URL_BYTES} bytes."}, 414)
TOO_MANY = JSONResponse(
    {"detail": "Too many requests at once. Try again in a moment."}, 429, {"Retry-After": "1"}
)
