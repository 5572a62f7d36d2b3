"""`make restore`: the database as late as can be, or as it was at a moment (TO); or beside the
live one, to look (INTO=scratch). FROM=offsite fetches the backups first."""

import os
import sys
import time

from host.commands import UserError
from ops import backups, lock, one_shots, program, recovery
from ops.docker import DockerError, compose, docker_log, last_lines
from ops.stack import Stack
from ops.terminal import Terminal

_SCRATCH = "scratch"
_LINES = 1000


def restore(terminal: Terminal) -> None:
    """Restore into the place that INTO names."""
    stack = Stack.read()
    backups.require(stack)
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
            recovery.step("look")
            of = f"of {moment}" if moment else "up to the newest write that was copied"
            recovery.confirm(stack, f"with its state {of}")
            one_shots.check_settings()
            if os.environ.get("FROM"):
                fetch(terminal)
            replace(stack, moment, terminal)


def replace(stack: Stack, moment: str, terminal: Terminal) -> None:
    """Replace the database.

    Raises:
        UserError: That fails; what was there serves again.
    """

    def prepare() -> None:
        if not moment:
            # So that the log is complete: the newest write is the last one that was acknowledged.
            recovery.stop(stack, terminal)
        with terminal.step("recovering beside the old data"):
            found = recovery.step("recover", moment, terminal)
        recovery.say_found(found, terminal)

    began = time.monotonic()
    recovery.change_places(stack, recovery.Files(), prepare, terminal)
    terminal.say(f"restored, {time.monotonic() - began:.1f} s in all; a base backup of it begins")


def fetch(terminal: Terminal) -> None:
    """Bring backups and volumes back from off the host, into what is empty."""
    with terminal.step("fetching the backups from RESTIC_REPOSITORY"):
        run = ("run", "--rm", "--no-deps", "--no-TTY", "fetch")
        said = compose(*run, merged=True, given_up_by=terminal)
    if said:
        terminal.say(said)


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
        recovery.say_found(docker_log(one.id, _LINES), terminal)
    terminal.say(
        "look:   docker compose exec scratch psql --dbname=berth\n"
        f"remove: docker compose --profile={_SCRATCH} {' '.join(remove)}"
    )


if __name__ == "__main__":
    sys.exit(program.run(restore, "`make restore` begins again"))
