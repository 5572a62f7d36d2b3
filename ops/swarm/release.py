"""Releases: what was deployed, kept in the swarm itself, so that any manager can go back to it.

A release is a config of the swarm's that holds the whole stack file; the configs and secrets that
it names are there for as long as it is. Which one runs, a label of the service `api` says.
"""

import getpass
import json
import re
import socket
import tempfile
from base64 import b64decode
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from host.commands import UserError
from ops.docker import DockerError, docker, inspect
from ops.stack import SERVICE
from ops.swarm.engine import NAMESPACE, Service
from ops.swarm.stack_file import Piece

KEPT = 5
LABEL = "berth.release"


@dataclass(frozen=True)
class Release:
    """A stack file, and where it came in.

    Attributes:
        number: They count up.
        replaces: The number of the one that ran before; 0 for none.
        image: The app's.
        file: What `docker stack deploy` takes.
    """

    number: int
    replaces: int
    image: str
    file: dict[str, Any]

    @property
    def pieces(self) -> set[str]:
        """The names of the configs and secrets that it needs."""
        return {*self.file["configs"], *self.file["secrets"]}


class Releases:
    """The releases of a stack."""

    def __init__(self, stack: str) -> None:
        self._stack = stack

    def _name(self, number: int) -> str:
        return f"{self._stack}_release-{number:05}"

    def numbers(self) -> list[int]:
        """Return the numbers of those that are kept, the newest first."""
        pattern = re.compile(rf"{re.escape(self._stack)}_release-(\d+)")
        found = (pattern.fullmatch(name) for name in _names("config", self._stack))
        return sorted((int(one[1]) for one in found if one), reverse=True)

    def read(self, number: int) -> Release:
        """Return one.

        Raises:
            UserError: It is not kept.
        """
        for found in inspect("config", self._name(number)):
            content = json.loads(b64decode(found["Spec"]["Data"]))
            return Release(number, content["replaces"], content["image"], content["file"])
        kept = ", ".join(map(str, self.numbers())) or "none"
        raise UserError(f"release {number} is not kept; there are: {kept}")

    def current(self, services: dict[str, Service]) -> int:
        """Return the number of the one that runs; 0 for none."""
        return int(services[SERVICE].labels.get(LABEL, 0)) if SERVICE in services else 0

    def write(self, image: str, replaces: int, file: dict[str, Any]) -> Release:
        """Keep one more, which has not run yet."""
        number = max([replaces, *self.numbers()]) + 1
        file["services"][SERVICE]["deploy"]["labels"][LABEL] = str(number)
        content = json.dumps({"image": image, "replaces": replaces, "file": file})
        _create(self._stack, "config", self._name(number), content.encode())
        return Release(number, replaces, image, file)

    def forget(self, number: int) -> None:
        """Keep one no longer."""
        docker("config", "rm", self._name(number))

    def prune(self, current: int) -> None:
        """Remove all but the newest, what the present one replaced, and what no other one needs."""
        kept = {current, self.read(current).replaces, *self.numbers()[:KEPT]}
        needed: set[str] = set()
        for number in self.numbers():
            if number in kept:
                needed |= self.read(number).pieces
            else:
                self.forget(number)
        for kind in ("config", "secret"):
            for name in _names(kind, self._stack):
                if name not in needed and re.search("-[0-9a-f]{12}$", name):
                    # A task that is on its way out may still have it: the next time, then.
                    with suppress(DockerError):
                        docker(kind, "rm", name)

    def put(self, pieces: Iterable[Piece]) -> None:
        """Have the swarm know configs and secrets."""
        there = {kind: set(_names(kind, self._stack)) for kind in ("config", "secret")}
        for one in pieces:
            if one.name not in there[one.kind]:
                _create(self._stack, one.kind, one.name, one.content)


def _names(kind: str, stack: str) -> list[str]:
    listed = docker(kind, "ls", f"--filter=label={NAMESPACE}={stack}", "--format={{.Name}}")
    return listed.split()


def _create(stack: str, kind: str, name: str, content: bytes) -> None:
    with tempfile.TemporaryFile() as file:
        file.write(content)
        file.seek(0)
        docker(kind, "create", f"--label={NAMESPACE}={stack}", name, "-", feed=file)


@contextmanager
def held(stack: str, doing: str) -> Iterator[None]:
    """Hold the lock of a stack: a config, since no swarm has two of one name.

    Raises:
        UserError: Somebody else does; the sentence says who.
    """
    now = datetime.now(UTC).strftime("%H:%M:%S UTC")
    who = f"a {doing} by {getpass.getuser()} on {socket.gethostname()}, since {now},"
    name = f"{stack}_lock"
    try:
        _create(stack, "config", name, who.encode())
    except DockerError as error:
        for found in inspect("config", name):
            other = b64decode(found["Spec"]["Data"]).decode()
            raise UserError(
                f"{other} is under way: wait until it ends; if it was killed, "
                f"`docker config rm {name}`"
            ) from None
        raise UserError(f"the lock of {stack} cannot be had: {error}") from None
    try:
        yield
    finally:
        docker("config", "rm", name)
