"""What `make import` is given: a file or folder that pg_dump made, or a database's URL."""

import getpass
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO
from urllib.parse import parse_qsl, unquote, urlsplit

from host.commands import UserError
from ops.docker import ROOT
from ops.stack import Stack

_END_SECONDS = 3


def step(stack: Stack, *arguments: str, options: Iterable[str]) -> list[str]:
    """Return what has docker run a step of db/import.sh.

    In a container of its own, since it meets what others wrote: it may reach nothing but what the
    options give it. What it prints may be rows, which belong in no log of the engine's.
    """
    return [
        *("run", "--rm", "--init", "--interactive", "--pull=never", "--log-driver=none"),
        *("--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges"),
        *("--memory=256m", "--pids-limit=50", f"--volume={ROOT}/db:/berth:ro"),
        # The image declares a volume there.
        *("--tmpfs=/tmp:mode=1777", "--tmpfs=/var/lib/postgresql", "--entrypoint=bash", *options),
        *(stack.service("db")["image"], "/berth/import.sh", *arguments),
    ]


def counts(lines: Iterable[str]) -> dict[str, int]:
    """Read how many rows each table has."""
    pairs = (line.rpartition(" ") for line in lines)
    return {table: int(rows) for table, _, rows in pairs}


def _is_count(line: str) -> bool:
    return line.startswith("rows ")


class Source:
    """The server that a URL leads to, while it is dumped."""

    def __init__(self, stack: Stack, service: str) -> None:
        # In the machine's own network: an address means there what it means to the user.
        command = step(stack, "source", options=("--user=postgres", "--network=host"))
        self._said = tempfile.TemporaryFile("w+")  # noqa: SIM115 - as long as this
        self._process = subprocess.Popen(
            ["docker", *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            start_new_session=True,
        )
        assert self._process.stdin  # noqa: S101 - for the type checker
        assert self._process.stdout  # noqa: S101
        self.dump: IO[bytes] = self._process.stdout
        # With the password: so that is in no argument, and in nothing that the engine keeps.
        with suppress(BrokenPipeError), self._process.stdin as stdin:
            stdin.write(service.encode())

    def rows(self) -> dict[str, int]:
        """Return how many rows each table had, once it is dumped."""
        self._process.wait()
        return counts(line.removeprefix("rows ") for line in self._lines() if _is_count(line))

    def complaint(self) -> str:
        """Return what the server or pg_dump said, if that is why there is no more of the dump."""
        with suppress(subprocess.TimeoutExpired):
            # Where others gave up, it waits for them to read on.
            if self._process.wait(timeout=_END_SECONDS):
                return next((one for one in self._lines() if not _is_count(one)), "pg_dump failed")
        return ""

    def _lines(self) -> list[str]:
        self._said.seek(0)
        return self._said.read().splitlines()

    def end(self) -> None:
        """End it, however far it is."""
        self.dump.close()
        self._process.terminate()
        self._process.wait()
        self._said.close()


@dataclass(frozen=True)
class Dump:
    """What is to be imported: a file, or what a service file of libpq's leads to.

    Attributes:
        shown: How sentences name it.
    """

    shown: str
    path: Path | None = None
    service: str = field(default="", repr=False)

    def options(self) -> list[str]:
        """Return what gives it to a container, which reads it as the user that owns it."""
        if not self.path:
            return ["--user=postgres"]
        owner = (self.path / "toc.dat" if self.path.is_dir() else self.path).stat()
        return [f"--user={owner.st_uid}:{owner.st_gid}", f"--volume={self.path}:/dump:ro"]

    @contextmanager
    def opened(self, stack: Stack) -> Iterator[Source | None]:
        """Have the server dump it, if it is at one."""
        source = Source(stack, self.service) if self.service else None
        try:
            yield source
        finally:
            if source:
                source.end()


def given() -> Dump:
    """Read FILE; a URL's password that is not given is asked for.

    Raises:
        UserError: It is nothing that could be imported.
    """
    value = os.environ.get("FILE", "")
    if not value:
        raise UserError("FILE is not given: a dump of pg_dump's, or postgres://user@host/database")
    if "://" in value:
        return at_url(value)
    path = Path(value).expanduser().absolute()
    shown = f"FILE={value}"
    if not path.exists():
        raise UserError(f"{shown}: there is no such file")
    if path.is_dir() and not (path / "toc.dat").exists():
        raise UserError(f"{shown}: a folder of pg_dump's has a file toc.dat")
    if ":" in str(path):
        raise UserError(f"{shown}: Docker mounts nothing with a colon in its name: rename it")
    return Dump(shown, path)


def at_url(url: str) -> Dump:
    """Read a URL, as libpq or SQLAlchemy would.

    Raises:
        UserError: It leads to no database. The sentence leaves out what may be a password.
    """
    parts = urlsplit(url)
    login, _, hosts = parts.netloc.rpartition("@")
    user, _, password = login.partition(":")
    database = unquote(parts.path.removeprefix("/"))
    shown = f"FILE={parts.scheme}://{hosts}/{database}"
    if parts.scheme.partition("+")[0] not in {"postgres", "postgresql"} or not (hosts and database):
        raise UserError(f"{shown}: give a file, or postgres://user@host/database")
    names, ports = zip(*(_place(one) for one in hosts.split(",")), strict=True)
    settings = {
        "host": ",".join(names),
        "port": ",".join(ports),
        "dbname": database,
        "user": unquote(user) or getpass.getuser(),
        "password": unquote(password) or os.environ.get("PGPASSWORD", ""),
        **dict(parse_qsl(parts.query)),
    }
    if not settings["password"] and sys.stdin.isatty():
        settings["password"] = getpass.getpass(f"Password of {settings['user']} at {hosts}: ")
    if any("\n" in value for value in settings.values()):
        raise UserError(f"{shown}: %0A stands for the end of a line, which nothing of it can have")
    lines = (f"{name}={value}\n" for name, value in settings.items() if value)
    return Dump(shown, service=f"[source]\n{''.join(lines)}")


def _place(host: str) -> tuple[str, str]:
    """Return the name and the port of a host, as a URL has them."""
    name, colon, port = host.rpartition(":")
    if not colon or "]" in port:
        name, port = host, "5432"
    return unquote(name.strip("[]")), port
