"""What others ask of a replica: `/livez`, `/readyz` and `/version`.

Outside of the app and all of its middleware, which might answer them with a redirect, a refusal of
the host's name, or a rate limit.
"""

from __future__ import annotations

import socket
from types import SimpleNamespace
from typing import TYPE_CHECKING

from .asgi import Answer, ASGIApp, Receive, Scope, Send

if TYPE_CHECKING:
    from .lifecycle import Lifecycle
    from .schema import Schema
    from .settings import Settings

LIVE, READY = "/livez", "/readyz"
# Asked by whoever watches this replica, whether or not it is still sent requests: no work, and
# always answered.
PATHS = frozenset({LIVE, READY})


class ProbesMiddleware:
    """Answers the probes itself."""

    def __init__(
        self, app: ASGIApp, lifecycle: Lifecycle, schema: Schema | None, settings: Settings
    ) -> None:
        self.app = app
        self.lifecycle = lifecycle
        self.schema = schema
        says = {"version": settings.app_version, "replica": socket.gethostname()}
        self.version = Answer(200, says)
        self.version_path = settings.version_path
        self.route = SimpleNamespace(path_format=self.version_path)  # as metrics name it

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope.get("path")
        if scope["type"] != "http" or path not in {LIVE, READY, self.version_path}:
            await self.app(scope, receive, send)
        elif scope["method"] not in {"GET", "HEAD"}:
            await NOT_ALLOWED(scope, receive, send)
        elif path == self.version_path:
            scope["route"] = self.route
            await self.version(scope, receive, send)
        elif path == READY and (reason := await self._problem()):
            unavailable = Answer(503, {"status": "unavailable", "reason": reason})
            await unavailable(scope, receive, send)
        else:
            await OK(scope, receive, send)

    async def _problem(self) -> str | None:
        """Say why this replica should not be sent requests, if it should not."""
        if self.lifecycle.draining:
            return "draining"
        return await self.schema.problem() if self.schema else None


OK = Answer(200, {"status": "ok"})
NOT_ALLOWED = Answer(405, {"detail": "Method Not Allowed"}, (b"allow", b"GET, HEAD"))
