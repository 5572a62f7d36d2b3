"""`make swarm-deploy IMAGE=…`: bring a version, or the present settings, into service."""

import os
import sys
import time

from host.commands import UserError
from ops import one_shots, program
from ops.stack import MIGRATE
from ops.swarm import database, engine, rollout, source
from ops.swarm.release import Releases, held
from ops.swarm.stack_file import StackFile
from ops.terminal import Terminal


def deploy(terminal: Terminal) -> None:
    """Migrate, then have the swarm replace what runs task by task."""
    began = time.monotonic()
    engine.require_manager()
    stack = source.name()
    with held(stack, "deploy"):
        releases = Releases(stack)
        current = releases.current(engine.services(stack))
        base = releases.read(current) if current else None
        image = os.environ.get("IMAGE", "")
        if image:
            image = source.pulled(image, terminal)
        elif base:
            image = base.image
        else:
            raise UserError(
                "nothing runs yet: give IMAGE=, the name that `make image PUSH=…` was given"
            )
        made = StackFile(source.configuration(image))
        releases.put(made.pieces.values())
        database.bring(stack, made, terminal)

        with terminal.step("migrating the database") as step:
            said = rollout.migrate(stack, made.of({MIGRATE: made.services[MIGRATE]}), terminal)
            step.found = one_shots.in_words(one_shots.migrations_in(said))
        terminal.checkpoint()
        release = releases.write(image, current, made.of(made.long_running))
        back = database.kept(base, release.file) if base else None
        try:
            rollout.bring(stack, release, back, terminal)
        except rollout.FailedError:
            if base:
                releases.forget(release.number)
            raise
        releases.prune(release.number)
        terminal.say(f"release {release.number}: {image}; {time.monotonic() - began:.1f} s in all")


if __name__ == "__main__":
    sys.exit(program.run(deploy, "the same command goes on from here", program.on_a_swarm))
