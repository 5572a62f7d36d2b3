"""One deploy, rollback or start of a stack at a time."""

import fcntl
import getpass
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import IO

from host.commands import Refusal
from ops.docker import ROOT

_PATH = ROOT / ".deploy.lock"


@dataclass(frozen=True)
class Holder:
    """Who changes the stack, and how many replicas there were when they began."""

    project: str
    doing: str
    who: str
    process: int
    since: str
    replicas: int = 0

    def __str__(self) -> str:
        return f"a {self.doing} by {self.who} (process {self.process}), since {self.since}"


class Lock:
    """The lock, held; what is written in it outlives us unless we end well."""

    def __init__(self, file: IO[str], holder: Holder) -> None:
        last = _read(file)
        # The number of replicas that the one before had begun with, if it did not get to its end.
        self.unfinished = last.replicas if last and last.project == holder.project else 0
        self._file = file
        self._holder = holder
        self.note_replicas(self.unfinished)

    def note_replicas(self, count: int) -> None:
        """Write down the number to come back to, should nobody get to finish this."""
        self._write(json.dumps(asdict(self._holder) | {"replicas": count}))

    def clear(self) -> None:
        """Leave nothing behind."""
        self._write("")

    def _write(self, text: str) -> None:
        self._file.seek(0)
        self._file.truncate()
        self._file.write(text)
        self._file.flush()


def holder() -> Holder | None:
    """Return who holds the lock now, without waiting."""
    try:
        file = _PATH.open()
    except OSError:
        return None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return _read(file)
    return None


@contextmanager
def held(project: str, doing: str) -> Iterator[Lock]:
    """Hold the lock.

    Raises:
        Refusal: Somebody else does; the sentence says who.
    """
    try:
        file = _PATH.open("a+")
    except PermissionError:
        raise Refusal(f"{_PATH} is not yours to write: run this as its owner") from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Refusal(f"{_read(file) or 'somebody'} is under way: wait until it ends") from None
        now = datetime.now(UTC).strftime("%H:%M:%S UTC")
        lock = Lock(file, Holder(project, doing, getpass.getuser(), os.getpid(), now))
        yield lock
        lock.clear()


def _read(file: IO[str]) -> Holder | None:
    file.seek(0)
    try:
        return Holder(**json.load(file))
    except (ValueError, TypeError):
        return None
