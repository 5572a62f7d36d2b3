"""Runs the app: `python -m berth.server`.

The first SIGTERM or SIGINT starts the drain: /readyz turns to 503 and serving goes on for
DRAIN_SECONDS, and longer if requests still come, while the proxy takes this replica out. Then the
listener closes and what is in flight, WebSockets included, has SHUTDOWN_SECONDS to finish. The exit
code is 0. A second signal, or one before start-up has finished, ends the process at once with
128 + the signal's number. After RECYCLE_REQUESTS a replica drains by itself and starts anew.
With API_WORKERS above 1 all this is true of each of the processes that workers.py keeps.
"""

import asyncio
import faulthandler
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Mapping
from io import FileIO
from math import ceil
from types import FrameType

import uvicorn

from . import environment, logs, recycling, workers
from .asgi import ASGIApp
from .importing import load_app
from .lifecycle import Lifecycle
from .limits import memory_for_bodies
from .metrics import Metrics
from .postgres import DatabaseUnavailableError, connect
from .recycling import Turns
from .schema import Schema, required
from .settings import Settings, load_settings
from .wrap import wrap

try:
    from .websockets import BoundedWebSocket
except ImportError:  # an app pins a uvicorn before 0.35, which bounds each message alone
    BoundedWebSocket = None  # type: ignore[assignment,misc]

logger = logging.getLogger(__name__)

# Longer than the 60 s for which the proxy keeps an idle connection: the side that sends requests
# must be the one that closes, or a request meets a closing connection.
KEEP_ALIVE_SECONDS = 75

# A drain lasts until no request has come for so long, or for so many times DRAIN_SECONDS more.
QUIET_SECONDS = 1
PATIENCE = 3

# The networks that containers and proxies live on. Not "*": then uvicorn believes the leftmost
# address of X-Forwarded-For, which is whatever the client wrote there.
PROXIES = ["127.0.0.0/8", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7"]

TICKS_PER_SECOND = 10


class Server(uvicorn.Server):
    """Uvicorn's, which drains.

    Args:
        app: The app, as its author wrote it.
        settings: Berth's.
        metrics: What counts requests; made before the app is imported, whose own metrics go the
            same way.
        schema: What the app's database must have; None if nothing, or if nobody knows.
        beat: What tells a parent that this process is alive.
    """

    def __init__(
        self,
        app: ASGIApp,
        settings: Settings,
        metrics: Metrics,
        schema: Schema | None,
        beat: workers.Beat | None = None,
    ) -> None:
        self.beat = beat
        self.settings = settings
        self.lifecycle = Lifecycle()
        self.metrics = metrics
        self.turns = Turns(settings.recycle_folder)
        self.drain_ends = 0.0
        self.turn: asyncio.Task[FileIO] | None = None
        self.starts_anew = False
        websocket: type[asyncio.Protocol] | str = "auto"
        if BoundedWebSocket is not None:
            # It is less than what they take: a message is copied on its way.
            share = memory_for_bodies(settings.api_workers) // 2
            BoundedWebSocket.memory = max(share, 4 * settings.max_body_bytes)
            websocket = BoundedWebSocket
        super().__init__(
            uvicorn.Config(
                wrap(app, settings, self.lifecycle, metrics, schema),
                host=settings.host,
                port=settings.port,
                loop="uvloop",
                http="httptools",
                interface="asgi3",
                log_config=None,
                log_level=settings.log_level.lower(),
                # The proxy writes the access log.
                access_log=False,
                server_header=False,
                forwarded_allow_ips=PROXIES + settings.trusted_proxies,
                timeout_keep_alive=KEEP_ALIVE_SECONDS,
                ws=websocket,
                ws_max_size=settings.max_body_bytes,
                # A kilobyte may unfold to a message of the largest size, and hundreds come at once.
                ws_per_message_deflate=False,
            )
        )

    def handle_exit(self, sig: int, _frame: FrameType | None) -> None:
        # Does not call super, which would have the signal raised again after a good shutdown.
        name = signal.Signals(sig).name
        if not self.started:
            self._end_now(sig, f"{name} before start-up has finished")
        if self.starts_anew:
            self.starts_anew = False
        elif self.lifecycle.draining:
            self._end_now(sig, f"{name} a second time")
        else:
            self._drain(name)

    def _drain(self, why: str) -> None:
        self.lifecycle.draining = True
        self.turns.leave()
        self.drain_ends = time.monotonic() + self.settings.drain_seconds
        logger.info("%s: draining for %g s", why, self.settings.drain_seconds)

    def _end_now(self, sig: int, why: str) -> None:
        logger.warning("%s: ending at once", why)
        # Nothing above this frame gets a chance to wait for anything.
        os._exit(128 + sig)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        if self.settings.has_database:
            try:
                await (await connect(self.settings)).close()
            except DatabaseUnavailableError as error:
                logger.critical("%s", error)
                sys.exit(os.EX_UNAVAILABLE)
        await super().startup(sockets)
        self.metrics.serve()

    async def on_tick(self, counter: int) -> bool:
        if counter % TICKS_PER_SECOND == 0:
            self._each_second()
        if self.lifecycle.draining:
            now = time.monotonic()
            # A proxy on a busy machine may be late to notice: whoever is sent requests serves on.
            is_quiet = now - self.lifecycle.late_request >= QUIET_SECONDS
            limit = self.drain_ends + PATIENCE * self.settings.drain_seconds
            self.should_exit |= now >= limit or (is_quiet and now >= self.drain_ends)
        return await super().on_tick(counter)

    def _each_second(self) -> None:
        if self.beat:
            self.beat()
        self.metrics.sample()
        if self.settings.recycle_requests and not self.lifecycle.draining:
            self.turns.serve()
            self._recycle(self.settings.recycle_requests)

    def _recycle(self, requests: int) -> None:
        if self.lifecycle.requests < requests:
            return
        if not self.turn:
            self.turn = asyncio.create_task(self.turns.wait())
        elif self.turn.done():
            self.turn.result()
            if self.beat:
                # Which has this process drain, too.
                os.kill(os.getppid(), workers.START_ANEW)
            else:
                self.starts_anew = True
                self._drain(f"{requests} requests served")

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Uvicorn's own would cut WebSockets at once and wait for the rest without end."""
        deadline = time.monotonic() + self.settings.shutdown_seconds
        for server in self.servers:
            server.close()
        for listener in sockets or ():
            listener.close()
        while self._websockets_open() and time.monotonic() < deadline:  # noqa: ASYNC110 - no event says so
            await asyncio.sleep(0.1)
        self.config.timeout_graceful_shutdown = max(1, ceil(deadline - time.monotonic()))
        await super().shutdown(sockets)

    def _websockets_open(self) -> bool:
        kind = self.config.ws_protocol_class
        return kind is not None and any(
            isinstance(connection, kind) for connection in self.server_state.connections
        )


def main(given: Mapping[str, str] | None = None) -> None:
    """Serve until told to stop.

    Args:
        given: The environment that the program was started with; by default this process's.
    """
    # SIGABRT is how the container's health check ends a hung server: say where it hung.
    faulthandler.enable()
    given = given or dict(os.environ)
    settings = load_settings()
    logs.configure(settings.log_level, settings.log_format)
    environment.prepare(settings)
    schema = required(settings)
    metrics = Metrics(settings)
    if settings.api_workers == 1:
        server = Server(load_app(settings), settings, metrics, schema)
        server.run()
        if server.starts_anew:
            recycling.start_anew(given)
        return

    def serve(listener: socket.socket, beat: workers.Beat) -> None:
        # Imported by each worker itself: an app need not bear to be forked.
        Server(load_app(settings), settings, metrics, schema, beat).run([listener])

    parent = workers.Workers(settings.api_workers, settings.host, settings.port, serve)
    code = parent.run()
    if parent.starts_anew:
        recycling.start_anew(given)
    sys.exit(code)


if __name__ == "__main__":
    main()
