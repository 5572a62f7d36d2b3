"""The `docker` command, in a session of its own: Ctrl-C is for us to handle, not for it."""

import json
import math
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any, TypedDict, Unpack

from host import engine
from host.commands import UserError
from ops.terminal import StopRequested, Terminal

ROOT = Path(__file__).parent.parent
_TAIL = 15
# Where a line of JSON, of the app's server or of Traefik, has its text.
_SAYING = ("message", "error", "exception")
# Seconds after which a command is given up. A program that only looks does so; one that changes
# something must see it through.
patience = math.inf
_COLOUR = re.compile("\x1b\\[[0-9;]*m")


class DockerError(UserError):
    """A docker command failed; the message is what it said last."""


class Options(TypedDict, total=False):
    """How to run a docker command.

    Attributes:
        stdin: What it reads.
        feed: What it reads, as it comes, in place of a text.
        environment: Variables to add to the present ones.
        merged: Whether to return its standard error as well.
        given_up_by: Whoever may end the command before it is done.
        meanwhile: What is called now and then while it runs.
        quoted: How many lines the message of its failure has at most.
    """

    stdin: str
    feed: IO[bytes] | None
    environment: Mapping[str, str]
    merged: bool
    given_up_by: Terminal | None
    meanwhile: Callable[[], None]
    quoted: int


def docker(*arguments: str, **options: Unpack[Options]) -> str:
    """Run docker and return what it prints on standard output.

    Raises:
        DockerError: It failed, or took longer than `patience`.
        StopRequested: It was given up.
    """
    feed = options.get("feed")
    try:
        child = subprocess.Popen(
            ["docker", *arguments],
            cwd=ROOT,
            env={**os.environ, **options.get("environment", {})},
            stdin=subprocess.PIPE if "stdin" in options else feed or subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT if options.get("merged") else subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
    except FileNotFoundError:
        raise DockerError("there is no docker command: run `make up` first") from None
    pending = options.get("stdin")
    person = options.get("given_up_by")
    deadline = time.monotonic() + patience
    while True:
        try:
            printed, complaint = child.communicate(pending, timeout=0.2)
            break
        except subprocess.TimeoutExpired:
            pending = None
            options.get("meanwhile", lambda: None)()
            if person and person.asked_to_stop:
                os.killpg(child.pid, signal.SIGTERM)
                child.communicate()
                raise StopRequested from None
            if time.monotonic() > deadline:
                os.killpg(child.pid, signal.SIGKILL)
                child.communicate()
                name = " ".join(arguments[:2])
                raise DockerError(f"docker {name} gave no answer in {patience:g} s") from None
        except BaseException:
            child.kill()
            raise
    if child.returncode != 0:
        count = options.get("quoted", _TAIL)
        said = tail(complaint or "", count) or tail(printed, count)
        said = said or f"docker {arguments[0]} failed"
        raise DockerError(engine.FORBIDDEN if engine.is_forbidden(said) else said)
    return printed.strip()


def compose(*arguments: str, **options: Unpack[Options]) -> str:
    """Run `docker compose` on the repository's stack; see `docker`."""
    return docker("compose", "--progress=quiet", *arguments, **options)


def inspect(kind: str, *names: str) -> list[dict[str, Any]]:
    """Return what `docker inspect` knows of those of the named objects that exist."""
    if not names:
        return []
    try:
        found = docker(kind, "inspect", *names)
    except DockerError:
        # One of them is gone by now: the others still count.
        if len(names) == 1:
            return []
        return [one for name in names for one in inspect(kind, name)]
    objects: list[dict[str, Any]] = json.loads(found)
    return objects


def docker_log(container: str, lines: int) -> str:
    """Return the end of a container's log, both its streams."""
    try:
        return _COLOUR.sub("", docker("logs", f"--tail={lines}", container, merged=True))
    except DockerError:
        return ""


def last_lines(container: str, count: int = _TAIL) -> str:
    """Return the end of a container's log, to be quoted: of lines of JSON what they say."""
    return tail("\n".join(map(_spoken, docker_log(container, count).splitlines())), count)


def _spoken(line: str) -> str:
    try:
        found = json.loads(line)
        return "\n".join(str(found[key]) for key in _SAYING if key in found)
    except (ValueError, TypeError):
        return line


def last_exit_code(container: str) -> str:
    """Return what a container last ended with, or a blank.

    While it runs again only events know, of which the engine keeps the last 256.
    """
    found = docker(
        *("events", "--since=24h", "--until=0s", "--filter=event=die"),
        *(f"--filter=container={container}", "--format={{.Actor.Attributes.exitCode}}"),
    )
    return found.splitlines()[-1] if found else ""


def tail(text: str, count: int = _TAIL) -> str:
    """Return the last lines of a text that say something, indented from the second on."""
    return "\n  ".join([line for line in text.splitlines() if line.strip()][-count:])
