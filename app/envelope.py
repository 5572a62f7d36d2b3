import logging
import os
from collections.abc import Awaitable
from contextvars import ContextVar

from starlette.types import ASGIApp, Message, Receive, Scope, Send

logger = logging.getLogger(__name__)

request_id: ContextVar[str] = ContextVar("request_id", default="")

# An answer that is no page of its own gets the strictest policy: a browser runs nothing of it.
POLICY = b"content-security-policy"
STRICTEST = (POLICY, b"default-src 'none'; frame-ancestors 'none'")


class Envelope:
    """Gives every request an id: in X-Request-ID, and in each record that is logged meanwhile.

    It is always one of ours. One taken from outside could be another request's, or anything else
    that somebody would like to see in the log.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        own_id = os.urandom(8).hex()
        # Uvicorn runs each request in a context of its own: no need to take it back.
        request_id.set(own_id)
        complete = False

        def send_enveloped(message: Message) -> Awaitable[None]:
            nonlocal complete
            if message["type"] == "http.response.start":
                headers = [*message.get("headers", ()), (b"x-request-id", own_id.encode())]
                if all(name != POLICY for name, _ in headers):
                    headers.append(STRICTEST)
                message["headers"] = headers
            elif not message.get("more_body", False):
                complete = True
            return send(message)

        try:
            await self.app(scope, receive, send_enveloped)
        except Exception:
            # Raised on, it would cost the connection, which other requests are to use.
            if not complete:
                raise
            logger.exception("%s %s failed", scope["method"], scope["path"])
