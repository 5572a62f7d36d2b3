"""Runs the app: `python -m app.server`.

The first SIGTERM or SIGINT starts the drain: /readyz turns to 503 and serving goes on for
DRAIN_SECONDS, and longer if requests still come, while the proxy takes this replica out. Then the
listener closes and what is in flight, WebSockets included, has SHUTDOWN_SECONDS to finish. The exit
code is 0. A second signal, or one before start-up has finished, ends the process at once with
128 + the signal's number. After RECYCLE_REQUESTS a replica drains by itself and starts anew.
With API_WORKERS above 1 all this is true of each of the processes that app/workers.py keeps.
"""

import asyncio
import faulthandler
import logging
import os
import signal
import socket
import sys
import time
from math import ceil
from types import FrameType

import uvicorn
from fastapi import FastAPI

from app import logs, recycling, workers
from app.database import Connection, DatabaseUnavailableError, connect
from app.lifecycle import CloseWhileDraining, Lifecycle
from app.limits import memory_for_bodies
from app.main import create_app
from app.settings import Settings, load_settings
from app.websockets import BoundedWebSocket

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
    def __init__(self, app: FastAPI, beat: workers.Beat | None = None) -> None:
        self.beat = beat
        settings: Settings = app.state.settings
        self.settings = settings
        self.lifecycle: Lifecycle = app.state.lifecycle
        self.drain_ends = 0.0
        self.turn: asyncio.Task[Connection] | None = None
        self.starts_anew = False
        # It is less than what they take: a message is copied on its way.
        share = memory_for_bodies(settings.api_workers) // 2
        BoundedWebSocket.memory = max(share, 4 * settings.max_body_bytes)
        super().__init__(
            uvicorn.Config(
                CloseWhileDraining(app, self.lifecycle),
                host=settings.host,
                port=settings.port,
                loop="uvloop",
                http="httptools",
                interface="asgi3",
                lifespan="on",
                log_config=None,
                log_level=settings.log_level.lower(),
                # The proxy writes the access log.
                access_log=False,
                server_header=False,
                forwarded_allow_ips=PROXIES,
                timeout_keep_alive=KEEP_ALIVE_SECONDS,
                ws=BoundedWebSocket,
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
        self.drain_ends = time.monotonic() + self.settings.drain_seconds
        logger.info("%s: draining for %g s", why, self.settings.drain_seconds)

    def _end_now(self, sig: int, why: str) -> None:
        logger.warning("%s: ending at once", why)
        # Nothing above this frame gets a chance to wait for anything.
        os._exit(128 + sig)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        try:
            await (await connect(self.settings)).close()
        except DatabaseUnavailableError as error:
            logger.critical("%s", error)
            sys.exit(os.EX_UNAVAILABLE)
        await super().startup(sockets)

    async def on_tick(self, counter: int) -> bool:
        if self.settings.recycle_requests:
            self._recycle(self.settings.recycle_requests)
        if self.lifecycle.draining:
            now = time.monotonic()
            # A proxy on a busy machine may be late to notice: whoever is sent requests serves on.
            is_quiet = now - self.lifecycle.late_request >= QUIET_SECONDS
            limit = self.drain_ends + PATIENCE * self.settings.drain_seconds
            self.should_exit |= now >= limit or (is_quiet and now >= self.drain_ends)
        if self.beat and counter % TICKS_PER_SECOND == 0:
            self.beat()
        return await super().on_tick(counter)

    def _recycle(self, requests: int) -> None:
        if self.lifecycle.draining or self.lifecycle.requests < requests:
            return
        if not self.turn:
            self.turn = asyncio.create_task(recycling.wait_for_turn(self.settings))
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


def main() -> None:
    # SIGABRT is how the container's health check ends a hung server: say where it hung.
    faulthandler.enable()
    settings = load_settings()
    logs.configure(settings.log_level, settings.log_format)
    app = create_app(settings)
    if settings.api_workers == 1:
        server = Server(app)
        server.run()
        if server.starts_anew:
            recycling.start_anew()
        return

    def serve(listener: socket.socket, beat: workers.Beat) -> None:
        Server(app, beat).run([listener])

    parent = workers.Workers(settings.api_workers, settings.host, settings.port, serve)
    code = parent.run()
    if parent.starts_anew:
        recycling.start_anew()
    sys.exit(code)


if __name__ == "__main__":
    main()
