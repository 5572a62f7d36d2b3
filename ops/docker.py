"""The `docker` command, in a session of its own: Ctrl-C is for us to handle, not for it."""

import json
import os
import re
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from host.commands import Refusal
from ops.terminal import StopRequested, Terminal

ROOT = Path(__file__).parent.parent
_TAIL = 15
_COLOUR = re.compile("\x1b\\[[0-9;]*m")


class DockerError(Refusal):
    """A docker command failed; the message is what it said last."""


def docker(
    *arguments: str,
    stdin: str | None = None,
    environment: Mapping[str, str] | None = None,
    merged: bool = False,
    given_up_by: Terminal | None = None,
) -> str:
    """Run docker and return what it prints on standard output.

    Args:
        arguments: What follows `docker`.
        stdin: What it reads.
        environment: Variables to add to the present ones.
        merged: Whether to return its standard error as well.
        given_up_by: Whoever may end the command before it is done.

    Raises:
        DockerError: It failed.
        StopRequested: It was given up.
    """
    try:
        child = subprocess.Popen(
            ["docker", *arguments],
            cwd=ROOT,
            env={**os.environ, **(environment or {})},
            stdin=subprocess.DEVNULL if stdin is None else subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT if merged else subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
    except FileNotFoundError:
        raise DockerError("there is no docker command: run `make up` first") from None
    pending = stdin
    while True:
        try:
            printed, complaint = child.communicate(pending, timeout=0.2)
            break
        except subprocess.TimeoutExpired:
            pending = None
            if given_up_by is not None and given_up_by.asked_to_stop:
                os.killpg(child.pid, signal.SIGTERM)
                child.communicate()
                raise StopRequested from None
        except BaseException:
            child.kill()
            raise
    if child.returncode != 0:
        raise DockerError(tail(complaint or "") or tail(printed) or f"docker {arguments[0]} failed")
    return printed.strip()


def compose(
    *arguments: str,
    stdin: str | None = None,
    environment: Mapping[str, str] | None = None,
    merged: bool = False,
    given_up_by: Terminal | None = None,
) -> str:
    """Run `docker compose` on the repository's stack; see `docker`."""
    return docker(
        "compose",
        "--progress=quiet",
        *arguments,
        stdin=stdin,
        environment=environment,
        merged=merged,
        given_up_by=given_up_by,
    )


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
    """Return the end of a container's log, to be quoted."""
    return tail(docker_log(container, count), count)


def tail(text: str, count: int = _TAIL) -> str:
    """Return the last lines of a text that say something, indented from the second on."""
    return "\n  ".join([line for line in text.splitlines() if line.strip()][-count:])
