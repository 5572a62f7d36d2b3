"""`make rotate-secrets`: give the database's roles new passwords without losing a request.

The new password lies beside the old one while the roles change over, and replicas that are refused
with one try the other. Stopped half-way, nothing is broken and the next run finishes it.
"""

import sys
import time

from host.commands import UserError
from ops import lock, program
from ops.docker import compose, docker
from ops.stack import Stack, State, running
from ops.terminal import Terminal

_LOG_IN = (
    "PGPASSWORD=$(< /run/secrets/database-password.next) psql --no-psqlrc --quiet"
    " --host=127.0.0.1 --username=berth --dbname=berth --command='SELECT 1'"
)


def rotate(terminal: Terminal) -> None:
    """Make a password, teach it to the database, then forget the old one."""
    began = time.monotonic()
    stack = Stack.read()
    with lock.held(stack, "change of the password"):
        if not any(one.state is State.HEALTHY for one in stack.containers("db")):
            raise UserError("the database does not run: `make up` first")
        with terminal.step("making new passwords"):
            one_shot("secrets", "prepare")
        with terminal.step("teaching them to the database"):
            one_shot("roles")
            compose("exec", "--no-TTY", "db", "bash", "-c", _LOG_IN)
        with terminal.step("forgetting the old ones"):
            one_shot("secrets", "complete")
            # It reads its own when it starts.
            for exporter in running(stack.containers("postgres-exporter")):
                docker("restart", exporter.id)
    terminal.say(
        "the database's passwords are new; connections that were open stay open; "
        f"{time.monotonic() - began:.1f} s in all"
    )


def one_shot(service: str, *arguments: str) -> None:
    """Run a service that ends by itself."""
    compose("run", "--rm", "--no-deps", "--no-TTY", service, *arguments, merged=True)


if __name__ == "__main__":
    sys.exit(program.run(rotate, "`make rotate-secrets` finishes what is left"))
