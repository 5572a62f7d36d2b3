"""Gives every request an id."""

import random
from collections.abc import Awaitable
from contextvars import ContextVar

from .asgi import ASGIApp, Message, Receive, Scope, Send

NAME = b"x-request-id"

request_id: ContextVar[str] = ContextVar("request_id", default="")


class RequestIDMiddleware:
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
        own_id = f"{random.getrandbits(64):016x}"  # no secret, but unlike others
        # Uvicorn runs each request in a context of its own: no need to take it back.
        request_id.set(own_id)

        def send_with_id(message: Message) -> Awaitable[None]:
            if message["type"] == "http.response.start":
                headers = [pair for pair in message.get("headers", ()) if pair[0] != NAME]
                headers.append((NAME, own_id.encode()))
                message["headers"] = headers
            return send(message)

        await self.app(scope, receive, send_with_id)
