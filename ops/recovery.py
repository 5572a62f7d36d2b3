"""Putting another database in the place of the one that serves, and back where that fails."""

import os
import sys
from collections.abc import Callable, Mapping
from typing import Protocol

from host.commands import UserError
from ops import version
from ops.docker import DockerError, compose, tail
from ops.https import Endpoint
from ops.images import Images
from ops.stack import SERVICE, Stack, running
from ops.terminal import Terminal
from ops.workers import of_the_app

_WAIT_SECONDS = 300
# For replicas to start on it: on a slow machine they must not be what undoes a good restore.
_START_SECONDS = 60


def confirm(stack: Stack, by: str) -> None:
    """Say what will be replaced, and have that confirmed.

    Raises:
        UserError: It is not.
    """
    print(
        f"This replaces the database of the stack {stack.project} (the volume "
        f"{stack.project}_database)\n{by}. The app answers 503 meanwhile; the "
        "old data stays until the new serves."
    )
    if os.environ.get("YES"):
        return
    if not sys.stdin.isatty():
        raise UserError("nobody is there to confirm that: YES=1 does it for scripts")
    if input("Type yes to go on: ").strip() != "yes":
        raise UserError("not confirmed, so nothing has changed")


class Places(Protocol):
    """Where the new database is, and the old one."""

    def swap(self) -> None:
        """Put the new one in the old one's place."""

    def back(self) -> None:
        """Put the old one in its place again, wherever it is, and remove the new one."""

    def keep(self) -> None:
        """Remove the old one."""


class Files:
    """Those of two databases, in one volume."""

    def swap(self) -> None:
        """Stop the database, and put the new files in its place."""
        compose("stop", "db")
        step("swap")

    def back(self) -> None:
        """Stop whichever database runs, and bring back the old files."""
        compose("stop", "db")
        step("back")

    def keep(self) -> None:
        """Delete the old files."""
        step("keep")


def change_places(
    stack: Stack,
    places: Places,
    prepare: Callable[[], None],
    terminal: Terminal,
    old: Mapping[str, str] | None = None,
) -> None:
    """Have a database prepared beside the old one, then serve from it.

    Args:
        stack: Whose.
        places: Where the two are.
        prepare: Makes it.
        terminal: Who is told.
        old: The variables under which the old one serves.

    Raises:
        UserError: That fails; the old one serves again.
    """
    replicas = len(running(stack.replicas())) or stack.wanted
    swapping = False
    images = Images(stack)
    if not images.current():  # on a machine that has nothing yet
        images.point_at(version.new(images, None, terminal))
    try:
        prepare()
        with terminal.step("stopping the app"):
            compose("stop", *of_the_app(stack))
        swapping = True
        with terminal.step("putting it in the old data's place"):
            places.swap()
        serve(stack, replicas, terminal)
    except BaseException as failure:
        with terminal.step("bringing back what was there"):
            if swapping:
                compose("stop", *of_the_app(stack))
                places.back()
            compose("up", "--detach", f"--scale={SERVICE}={replicas}", environment=old or {})
        if isinstance(failure, UserError):
            raise UserError(f"not done, what was there serves again: {failure}") from None
        raise
    places.keep()


def serve(stack: Stack, replicas: int, terminal: Terminal) -> None:
    """Bring the app back, and see that it answers.

    Raises:
        UserError: It does not.
    """
    with terminal.step("starting the app on it"):
        compose("up", "--detach", "--wait", f"--wait-timeout={_WAIT_SECONDS}", "db")
        compose("up", "--detach", f"--scale={SERVICE}={replicas}")
        Endpoint(stack.domain, *stack.published(443)).await_ready(terminal, _START_SECONDS)


def stop(stack: Stack, terminal: Terminal) -> None:
    """Stop the app, then the database, which hands the rest of its log to the backup first."""
    with terminal.step("stopping the app and the database"):
        compose("stop", *of_the_app(stack))
        compose("stop", "db")


def step(name: str, moment: str = "", terminal: Terminal | None = None) -> str:
    """Run a step of backup/restore.sh in the database's volume; return what it says.

    Raises:
        UserError: It fails; the sentence is its own.
    """
    try:
        return compose(
            *("run", "--rm", "--no-deps", "--no-TTY", "restore", name),
            environment={"TO": moment},
            merged=True,
            given_up_by=terminal,
        )
    except DockerError as error:
        raise UserError(tail(str(error), 4)) from None


def say_found(said: str, terminal: Terminal) -> None:
    """Say what a step of backup/restore.sh found: the indented lines."""
    terminal.say("\n".join(line for line in said.splitlines() if line.startswith("  ")))
