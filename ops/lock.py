"""One deploy, rollback or start of a project at a time, whoever begins it and from wherever.

The lock is a container that runs for as long as its standard input, which ends with us however we
end. So it is where the project is: at its engine, for every clone, user and machine that uses it.
"""

import getpass
import json
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

from host import engine
from host.commands import UserError
from ops.docker import DockerError, docker, inspect, tail
from ops.stack import Stack

_LABEL = "berth.lock"
_REPLICAS = "berth.replicas"
# For one that is being made or removed to be there, or gone.
_PATIENCE_SECONDS = 15


@dataclass(frozen=True)
class Holder:
    """Who changes the stack."""

    doing: str
    who: str
    process: int
    machine: str
    since: str

    def __str__(self) -> str:
        where = "" if self.machine == socket.gethostname() else f" on {self.machine}"
        return f"a {self.doing} by {self.who}{where} (process {self.process}), since {self.since}"


class Lock:
    """The lock, held, and a note that outlives us unless we end well: a volume's label."""

    def __init__(self, project: str) -> None:
        self._note = f"{project}_unfinished"
        # The number of replicas that the one before had begun with, if it did not get to its end.
        self.unfinished = self._noted = self._read()

    def note_replicas(self, count: int) -> None:
        """Write down the number to come back to, should nobody get to finish this."""
        if count != self._noted:
            self.clear()
            docker("volume", "create", f"--label={_REPLICAS}={count}", self._note)
            self._noted = count

    def clear(self) -> None:
        """Leave nothing behind."""
        if self._noted:
            docker("volume", "rm", "--force", self._note)
            self._noted = 0

    def _read(self) -> int:
        for volume in inspect("volume", self._note):
            with suppress(ValueError):
                return int((volume["Labels"] or {}).get(_REPLICAS, ""))
        return 0


def holder(project: str) -> Holder | None:
    """Return who holds a project's lock now, without waiting."""
    for found in inspect("container", _name(project)):
        with suppress(ValueError, TypeError):
            if found["State"]["Running"]:
                return Holder(**json.loads(found["Config"]["Labels"][_LABEL]))
    return None


@contextmanager
def held(stack: Stack, doing: str) -> Iterator[Lock]:
    """Hold the lock of a stack's project.

    Raises:
        UserError: Somebody else does; the sentence says who.
    """
    now = datetime.now(UTC).strftime("%H:%M:%S UTC")
    us = Holder(doing, getpass.getuser(), os.getpid(), socket.gethostname(), now)
    container = _acquire(stack, us)
    try:
        lock = Lock(stack.project)
        yield lock
        lock.clear()
    finally:
        container.communicate()


def _name(project: str) -> str:
    return f"{project}-lock"


def _acquire(stack: Stack, us: Holder) -> subprocess.Popen[bytes]:
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while True:
        container, complaint = _run(stack, us)
        if not complaint:
            return container
        if "already in use" not in complaint:
            said = engine.FORBIDDEN if engine.is_forbidden(complaint) else tail(complaint)
            raise UserError(f"the lock of {stack.project} cannot be had: {said}")
        if other := holder(stack.project):
            raise UserError(f"{other} is under way: wait until it ends")
        if time.monotonic() > deadline:
            _remove_stale(_name(stack.project))
        time.sleep(0.2)


def _remove_stale(name: str) -> None:
    """Remove what is left if the engine was killed while it made or removed a lock."""
    for found in inspect("container", name):
        if _LABEL not in found["Config"]["Labels"]:
            raise UserError(f"the container {name} is not Berth's, which needs its name: rename it")
        with suppress(DockerError):
            docker("container", "rm", "--force", found["Id"])


def _run(stack: Stack, us: Holder) -> tuple[subprocess.Popen[bytes], str]:
    """Start the container; return it and, if that fails, what was said."""
    container = subprocess.Popen(
        [
            *("docker", "run", "--rm", "--interactive", f"--name={_name(stack.project)}"),
            *(f"--label={_LABEL}={json.dumps(asdict(us))}", "--log-driver=none"),
            *("--network=none", "--read-only", "--cap-drop=ALL", "--memory=16m", "--pull=never"),
            # The image declares a volume there.
            *("--tmpfs=/var/lib/postgresql", "--entrypoint=cat"),
            stack.service("db")["image"],
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    assert container.stdin  # noqa: S101
    assert container.stdout  # noqa: S101
    # What comes back has been there.
    with suppress(BrokenPipeError):
        container.stdin.write(b"\n")
        container.stdin.flush()
        if container.stdout.readline():
            return container, ""
    _, complaint = container.communicate()
    return container, complaint.decode() or "its container ended"
