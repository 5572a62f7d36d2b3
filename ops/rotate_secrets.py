"""`make rotate-secrets`: give the app's database role a new password without losing a request.

The new password lies beside the old one while the role changes over, and replicas that are refused
with one try the other. Stopped half-way, nothing is broken and the next run finishes it.
"""

import sys
import time

from host.commands import Refusal
from ops import lock, program
from ops.docker import compose
from ops.stack import Stack, State
from ops.terminal import Terminal

# Read by psql itself, so that the password shows neither in a process list nor in the log.
_CHANGE = r"""
SET log_statement = 'none';
SET log_min_duration_statement = -1;
SET log_min_error_statement = 'panic';
\set password `cat /run/secrets/database-password.next`
ALTER ROLE berth PASSWORD :'password';
"""
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
            raise Refusal("the database does not run: `make up` first")
        with terminal.step("making a new password"):
            secrets("prepare")
        with terminal.step("teaching it to the database"):
            psql = ("psql", "--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1", "--dbname=postgres")
            compose("exec", "--no-TTY", "db", *psql, stdin=_CHANGE)
            compose("exec", "--no-TTY", "db", "bash", "-c", _LOG_IN)
        with terminal.step("forgetting the old one"):
            secrets("complete")
    terminal.say(
        "the app's database password is new; connections that were open stay open; "
        f"{time.monotonic() - began:.1f} s in all"
    )


def secrets(half: str) -> None:
    """Run one half of what the one-shot `secrets` does for this."""
    compose("run", "--rm", "--no-deps", "--no-TTY", "secrets", half)


if __name__ == "__main__":
    sys.exit(program.run(rotate, "`make rotate-secrets` finishes what is left"))
