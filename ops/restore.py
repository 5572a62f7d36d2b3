"""`make restore`: the database as late as can be, or as it was at a moment (TO); or beside the
live one, to look (INTO=scratch). FROM=offsite fetches the backups first."""

import os
import sys
import time
from collections.abc import Callable, Mapping

from host.commands import UserError
from ops import backup, lock, program, up
from ops.docker import DockerError, compose, docker_log, last_lines, tail
from ops.https import Endpoint
from ops.images import Images
from ops.stack import SERVICE, Stack, running
from ops.terminal import Terminal

_WAIT_SECONDS = 300
# For replicas to start on it: on a slow machine they must not be what undoes a good restore.
_START_SECONDS = 60
_SCRATCH = "scratch"
_LINES = 1000


def restore(terminal: Terminal) -> None:
    """Restore into the place that INTO names."""
    stack = Stack.read()
    backup.require(stack)
    moment = os.environ.get("TO", "")
    into = os.environ.get("INTO", "")
    if os.environ.get("FROM", "offsite") != "offsite":
        raise UserError(f"FROM={os.environ['FROM']}: leave it out for BACKUP_DIR, or give offsite")
    if into not in {"", _SCRATCH}:
        raise UserError(f"INTO={into}: leave it out to replace the database, or give {_SCRATCH}")
    with lock.held(stack, "restore"):
        if into:
            restore_beside(stack, moment, terminal)
        else:
            step("look")
            of = f"of {moment}" if moment else "up to the newest write that was copied"
            confirm(stack, f"with its state {of}")
            up.check_settings()
            if os.environ.get("FROM"):
                fetch(terminal)
            replace(stack, moment, terminal)


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


def replace(stack: Stack, moment: str, terminal: Terminal) -> None:
    """Replace the database.

    Raises:
        UserError: That fails; what was there serves again.
    """

    def prepare() -> None:
        if not moment:
            # So that the log is complete: the newest write is the last one that was acknowledged.
            stop(terminal)
        with terminal.step("recovering beside the old data"):
            found = step("recover", moment, terminal)
        say_found(found, terminal)

    began = time.monotonic()
    change_places(stack, prepare, terminal)
    terminal.say(f"restored, {time.monotonic() - began:.1f} s in all; a base backup of it begins")


def change_places(
    stack: Stack,
    prepare: Callable[[], None],
    terminal: Terminal,
    old: Mapping[str, str] | None = None,
) -> None:
    """Have a database prepared beside the old one, then serve from it.

    Args:
        stack: Whose.
        prepare: Makes it.
        terminal: Who is told.
        old: The variables under which the old one serves.

    Raises:
        UserError: That fails; the old one serves again.
    """
    replicas = len(running(stack.replicas())) or stack.wanted
    swapping = False
    up.ensure_image(Images(stack), terminal)
    try:
        prepare()
        stop(terminal)
        swapping = True
        with terminal.step("putting it in the old data's place"):
            step("swap")
        serve(stack, replicas, terminal)
    except BaseException as failure:
        with terminal.step("bringing back what was there"):
            if swapping:
                compose("stop", SERVICE, "db")
                step("back")
            compose("up", "--detach", f"--scale={SERVICE}={replicas}", environment=old or {})
        if isinstance(failure, UserError):
            raise UserError(f"not done, what was there serves again: {failure}") from None
        raise
    step("keep")


def say_found(said: str, terminal: Terminal) -> None:
    """Say what a step of backup/restore.sh found: the indented lines."""
    terminal.say("\n".join(line for line in said.splitlines() if line.startswith("  ")))


def fetch(terminal: Terminal) -> None:
    """Bring the backups back from off the host, into an empty BACKUP_DIR."""
    with terminal.step("fetching the backups from RESTIC_REPOSITORY"):
        compose("run", "--rm", "--no-deps", "--no-TTY", "fetch", given_up_by=terminal)


def stop(terminal: Terminal) -> None:
    """Stop the app, then the database, which hands the rest of its log to the backup first."""
    with terminal.step("stopping the app and the database"):
        compose("stop", SERVICE)
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


def serve(stack: Stack, replicas: int, terminal: Terminal) -> None:
    """Bring the app back, and see that it answers.

    Raises:
        UserError: It does not.
    """
    with terminal.step("starting the app on it"):
        compose("up", "--detach", "--wait", f"--wait-timeout={_WAIT_SECONDS}", "db")
        compose("up", "--detach", f"--scale={SERVICE}={replicas}")
        up.await_answer(Endpoint(stack.domain, *stack.published(443)), terminal, _START_SECONDS)


def restore_beside(stack: Stack, moment: str, terminal: Terminal) -> None:
    """Restore into a database of its own.

    Raises:
        UserError: That fails.
    """
    with terminal.step("recovering into scratch"):
        remove = ("rm", "--stop", "--force", "--volumes", _SCRATCH)
        compose(f"--profile={_SCRATCH}", *remove)
        try:
            compose(
                *(f"--profile={_SCRATCH}", "up", "--detach", "--wait", "--no-deps", _SCRATCH),
                environment={"TO": moment},
                given_up_by=terminal,
            )
        except DockerError:
            said = [last_lines(one.id, 4) for one in stack.containers(_SCRATCH)]
            raise UserError("\n".join(said)) from None
    for one in stack.containers(_SCRATCH):
        say_found(docker_log(one.id, _LINES), terminal)
    terminal.say(
        "look:   docker compose exec scratch psql --dbname=berth\n"
        f"remove: docker compose --profile={_SCRATCH} {' '.join(remove)}"
    )


if __name__ == "__main__":
    sys.exit(program.run(restore, "`make restore` begins again"))
