"""The types of ASGI, and answers that need no framework.

https://asgi.readthedocs.io/en/latest/specs/www.html
"""

import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]


class Answer:
    """An app that always answers the same, as JSON.

    Args:
        status: The HTTP status.
        body: What is said.
        headers: What is sent besides Content-Type and Content-Length, with names in lower case.
    """

    def __init__(self, status: int, body: dict[str, str], *headers: tuple[bytes, bytes]) -> None:
        content = json.dumps(body, separators=(",", ":")).encode()
        own = ((b"content-type", b"application/json"), (b"content-length", b"%d" % len(content)))
        self._status = status
        self._content = content
        self._headers = (*own, *headers)

    async def __call__(self, _scope: Scope, _receive: Receive, send: Send) -> None:
        headers = list(self._headers)
        await send({"type": "http.response.start", "status": self._status, "headers": headers})
        await send({"type": "http.response.body", "body": self._content})


RETRY_AFTER = (b"retry-after", b"1")
