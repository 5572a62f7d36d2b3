"""`make upgrade-db`: bring the database to the version of POSTGRES_IMAGE.

By dumping it into a new one: that is slower than pg_upgrade, but needs no image with both versions,
and builds every index anew, as a change of the operating system's collations requires.
"""

import os
import sys
import time

from host import images
from host.commands import UserError
from ops import backups, lock, program, recovery
from ops.docker import compose
from ops.stack import Stack
from ops.terminal import Terminal
from ops.workers import of_the_app


def upgrade(terminal: Terminal) -> None:
    """Upgrade, if there is anything to upgrade.

    Raises:
        UserError: It cannot be done, or there is no way back: no fresh, proven backup.
    """
    began = time.monotonic()
    stack = Stack.read()
    stack.require_own_database("its provider upgrades it")
    backups.require(stack)
    with lock.held(stack, "upgrade"):
        here, wanted = (int(one) for one in recovery.step("versions").split()[-2:])
        if here == wanted:
            terminal.say(f"the database is of PostgreSQL {here}, as POSTGRES_IMAGE is")
            return
        if here > wanted:
            raise UserError(
                f"the database is of PostgreSQL {here}, POSTGRES_IMAGE only of {wanted}"
            )
        recovery.step("proof")
        old = os.environ.get("FROM_IMAGE") or f"postgres:{here}"
        images.ensure([old])
        recovery.confirm(stack, f"in PostgreSQL {wanted} instead of {here}")
        before = {"POSTGRES_IMAGE": old}

        def prepare() -> None:
            with terminal.step("stopping the app"):
                compose("stop", *of_the_app(stack))
            with terminal.step(f"dumping PostgreSQL {here} into {wanted}"):
                alone = {**before, "POSTGRES_LISTEN": "127.0.0.1"}
                compose("up", "--detach", "--wait", "--no-deps", "db", environment=alone)
                found = recovery.step("upgrade", terminal=terminal)
            recovery.say_found(found, terminal)

        recovery.change_places(stack, recovery.Files(), prepare, terminal, old=before)
        # To its backups it is another database.
        os.environ["ANEW"] = "yes"
        backups.run("base")
        terminal.say(f"PostgreSQL {here} → {wanted}, {time.monotonic() - began:.1f} s in all")


if __name__ == "__main__":
    sys.exit(program.run(upgrade, "`make upgrade-db` begins again"))
