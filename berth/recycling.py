"""Starts a replica anew after RECYCLE_REQUESTS, before what leaks in it fills its memory.

One replica at a time, and drained like any other: uvicorn's own limit_max_requests ends a server
that is still being sent requests. The process replaces itself, so that neither Docker's count of
restarts nor its back-off takes it for a crash.

Replicas take turns by a folder that all of this machine share: a lock on a file is the turn, and
each replica that serves touches a file of its own.
"""

import asyncio
import fcntl
import logging
import os
import socket
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from io import FileIO
from pathlib import Path
from typing import NoReturn

logger = logging.getLogger(__name__)

# Whoever had the turn last is back by then.
SETTLE_SECONDS = 10
RETRY_SECONDS = 60
POLL_SECONDS = 0.5
# A replica whose file is older does not serve.
SILENT_SECONDS = 5


class Turns:
    """The folder in which replicas take turns.

    Args:
        folder: Where it is.
        name: This replica's.
    """

    def __init__(self, folder: Path, name: str = "") -> None:
        self._folder = folder
        self._own = folder / f"{name or socket.gethostname()}.serves"
        self._can_write = True

    def serve(self) -> None:
        """Tell others that this replica serves; to be called about every second."""
        try:
            self._own.touch()
        except OSError as error:
            if self._can_write:
                logger.warning("%s: RECYCLE_REQUESTS has no effect", error)
            self._can_write = False

    def leave(self) -> None:
        """Tell others that it does not any more."""
        with suppress(OSError):
            self._own.unlink(missing_ok=True)

    def others(self) -> bool:
        """Whether another replica serves."""
        now = time.time()
        for file in self._folder.glob("*.serves"):
            with suppress(FileNotFoundError):
                if file != self._own and now - file.stat().st_mtime < SILENT_SECONDS:
                    return True
        return False

    async def wait(self) -> FileIO:
        """Return once this replica may leave and others serve.

        The turn lasts until the file that is returned is closed, as it is by a new program.
        """
        while True:
            try:
                turn = await self._lock()
            except OSError as error:
                why = str(error)
            else:
                await asyncio.sleep(SETTLE_SECONDS)
                if self.others():
                    return turn
                turn.close()
                why = "no other replica serves"
            logger.warning("due to start anew, but %s: trying again in %d s", why, RETRY_SECONDS)
            await asyncio.sleep(RETRY_SECONDS)

    async def _lock(self) -> FileIO:
        turn = FileIO(self._folder / "turn", "w")
        while True:
            try:
                fcntl.flock(turn, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                await asyncio.sleep(POLL_SECONDS)
            else:
                return turn


def start_anew(environment: Mapping[str, str]) -> NoReturn:
    """Replace this process by a fresh one of the same program.

    Args:
        environment: What the program was given when it was started.
    """
    logging.shutdown()
    os.execve(sys.executable, sys.orig_argv, environment)  # noqa: S606 - no shell is wanted
