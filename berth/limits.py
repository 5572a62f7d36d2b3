"""What one request may bring, and all of them together. Any ASGI app can be wrapped in it."""

import os
from collections.abc import Awaitable
from contextlib import suppress
from pathlib import Path

from .asgi import RETRY_AFTER, Answer, ASGIApp, Message, Receive, Scope, Send
from .probes import PATHS

# As long as common servers and browsers go; behind it a proxy bounds all headers together.
MAX_URL_BYTES = 8192

# What a proxy passes on comes from outside: there, a check is a request like any other.
PASSED_ON = b"x-forwarded-for"

# What Python adds to each part of a body: a thousand parts of a byte take more than 50 KB.
PART_BYTES = 64

# What an app takes for itself, and the share of the rest that is for bodies: they are copied when
# they are joined and grow when they are parsed, and WebSockets have a share of their own.
APP_BYTES = 64 * 2**20
SHARE_FOR_BODIES = 1 / 4
CGROUP_LIMITS = (
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)


def memory_for_bodies(processes: int) -> int:
    """Return how many bytes of bodies each of this container's processes may hold at a time."""
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for file in CGROUP_LIMITS:
        with suppress(OSError, ValueError):  # it is of the other version, or says "max"
            limits.append(int(file.read_text()))
    return int(max(0, min(limits) / processes - APP_BYTES) * SHARE_FOR_BODIES)


class LimitsMiddleware:
    """Refuses what is too large, and more at a time than this process can serve.

    A request is in hand from its arrival until its answer begins, but not while it waits for its
    body: neither slow clients nor long streams keep others out. The bytes of bodies count until the
    app is done with them. When they are too many, the body that has been on its way for longest is
    given up: who sends slowly on purpose is always among those.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        max_in_flight: int,
        max_body_bytes: int,
        body_memory: int,
    ) -> None:
        self.app = app
        self.max_in_flight = max_in_flight
        self.max_body_bytes = max_body_bytes
        # One body of the largest size must do.
        self.body_memory = max(body_memory, 2 * max_body_bytes)
        self.in_flight = 0
        self.body_bytes = 0
        # Those whose bodies are on their way, oldest first.
        self.uploads: dict[Request, None] = {}
        self.too_large = Answer(413, {"detail": f"The body exceeds {max_body_bytes} bytes."})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = dict(scope["headers"])  # of a name that comes twice, servers took one or refused
        size = int(headers.get(b"content-length", b"0"))
        if scope["path"] in PATHS and PASSED_ON not in headers:
            await self.app(scope, receive, send)
        elif refusal := self._refusal(scope, size):
            await refusal(scope, receive, send)
        else:
            request = Request(self, scope, receive, send)
            try:
                await self.app(scope, request.receive, request.send)
            except Exception:
                if not request.is_refused:
                    raise
            finally:
                request.leave()

    def _refusal(self, scope: Scope, size: int) -> ASGIApp | None:
        if len(scope["raw_path"]) + len(scope["query_string"]) > MAX_URL_BYTES:
            return URL_TOO_LONG
        if size > self.max_body_bytes:
            return self.too_large
        return TOO_MANY if self.in_flight >= self.max_in_flight else None


class Request:
    """One that was let in; it may still be refused for what it brings."""

    def __init__(
        self, limits: LimitsMiddleware, scope: Scope, receive: Receive, send: Send
    ) -> None:
        self._limits = limits
        self._scope = scope
        self._receive = receive
        self._send = send
        self._size = 0
        self._held = 0
        self._is_complete = False
        self._is_answered = False
        self.is_refused = False
        self._is_in_hand = True
        limits.in_flight += 1

    async def receive(self) -> Message:
        if self._is_complete or self.is_refused:
            return await self._receive()
        limits = self._limits
        self._put_down()
        if not self._is_answered:
            limits.uploads.setdefault(self)
        message = await self._receive()
        if message["type"] != "http.request" or self.is_refused:
            limits.uploads.pop(self, None)
            return message

        self._is_complete = not message.get("more_body", False)
        part = len(message.get("body", b""))
        self._size += part
        self._held += part + PART_BYTES
        limits.body_bytes += part + PART_BYTES
        if self._is_complete:
            limits.uploads.pop(self, None)
        if self._size > limits.max_body_bytes:
            return await self.refuse(limits.too_large)
        while limits.body_bytes > limits.body_memory:
            oldest = next(iter(limits.uploads), self)
            refusal = await oldest.refuse(TOO_MANY)
            if oldest is self:
                return refusal
        if self._is_complete and not self._is_answered:
            if limits.in_flight >= limits.max_in_flight:
                return await self.refuse(TOO_MANY)
            self._is_in_hand = True
            limits.in_flight += 1
        return message

    def send(self, message: Message) -> Awaitable[None]:
        if self.is_refused:
            return _drop()
        if not self._is_answered:
            self._is_answered = True
            self._put_down()
            self._limits.uploads.pop(self, None)
        return self._send(message)

    def leave(self) -> None:
        """Count no more."""
        self._put_down()
        self._limits.uploads.pop(self, None)
        self._limits.body_bytes -= self._held
        self._held = 0

    def _put_down(self) -> None:
        self._limits.in_flight -= self._is_in_hand
        self._is_in_hand = False

    async def refuse(self, answer: ASGIApp) -> Message:
        """Answer instead of the app, which is told that the client has gone.

        If it waits for more of the body, that is what an answered request's `receive` says.
        """
        self.leave()
        self.is_refused = True
        if not self._is_answered:
            with suppress(OSError):
                await answer(self._scope, self._receive, self._send)
        return {"type": "http.disconnect"}


async def _drop() -> None:
    """Send nothing."""


URL_TOO_LONG = Answer(414, {"detail": f"The URL exceeds {MAX_URL_BYTES} bytes."})
TOO_MANY = Answer(429, {"detail": "Too many requests at once. Try again in a moment."}, RETRY_AFTER)
