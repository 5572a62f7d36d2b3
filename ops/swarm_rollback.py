"""`make swarm-rollback`: bring the release before this one, or TO=<number>, back into service.

It runs no migrations: a replica accepts a schema newer than its own.
"""

import os
import sys
import time

from host.commands import UserError
from ops import program
from ops.swarm import database, engine, rollout, source
from ops.swarm.release import Release, Releases, held
from ops.terminal import Terminal


def rollback(terminal: Terminal) -> None:
    """Have the swarm replace what runs by what ran before, settings and secrets included."""
    began = time.monotonic()
    engine.require_manager()
    stack = source.name()
    with held(stack, "rollback"):
        releases = Releases(stack)
        current = releases.current(engine.services(stack))
        if not current:
            raise UserError("nothing has been deployed yet: there is nothing to go back to")
        base = releases.read(current)
        release = _wanted(releases, base)
        database.refuse_change(stack, release)
        rollout.bring(stack, release, database.kept(base, release.file), terminal)
        terminal.say(
            f"release {release.number}: {release.image}; the schema stays as it is; "
            f"{time.monotonic() - began:.1f} s in all"
        )


def _wanted(releases: Releases, base: Release) -> Release:
    given = os.environ.get("TO", "")
    if given:
        if not given.isdecimal():
            raise UserError(f"TO={given}: give the number of a release")
        return releases.read(int(given))
    if not base.replaces:
        raise UserError(f"release {base.number} is the first: there is nothing to go back to")
    return releases.read(base.replaces)


if __name__ == "__main__":
    sys.exit(program.run(rollback, "the same command goes on from here", program.on_a_swarm))
