"""`make psql`: a prompt in the app's database, or SQL="select 1", as the role that owns the schema.

Never as superuser, with whose rights a view or function of the app's would run.
"""

import json
import os
import sys

from host.commands import UserError, carried_out
from ops.docker import compose
from ops.stack import Stack, ids, running

_LEADS_THERE = ("PGHOST", "PGPORT", "PGDATABASE", "PGUSER", "PGPASSWORD")
_SAY = f"import json, os; print(json.dumps([os.environ[name] for name in {_LEADS_THERE}]))"


def psql() -> None:
    """Become psql in the database's container.

    Raises:
        UserError: There is no database to log in to.
    """
    stack = Stack.read()
    databases = ids(running(stack.containers("db")))
    if not databases:
        raise UserError("the database does not run: `make up`")
    # As `migrate` logs in, which knows the owner's password.
    one_off = ("run", "--rm", "--no-deps", "--no-TTY", "migrate")
    said = compose(*one_off, "python", "-m", "_berth.run", "python", "-c", _SAY)
    os.environ.update(zip(_LEADS_THERE, json.loads(said), strict=True))
    os.environ["PSQL_HISTORY"] = os.devnull  # else it is kept beside the data
    names = [f"--env={name}" for name in (*_LEADS_THERE, "PSQL_HISTORY")]
    # A large answer comes in pieces: the client's memory here is that of the database.
    command = ["psql", "--no-psqlrc", "--set=FETCH_COUNT=1000"]
    sql = os.environ.get("SQL")
    at_terminal = sys.stdin.isatty() and sys.stdout.isatty() and not sql
    if not at_terminal:
        command.append("--set=ON_ERROR_STOP=1")
    if sql:
        command.append(f"--command={sql}")
    terminal = ["--interactive", *(["--tty"] if at_terminal else [])]
    os.execvp("docker", ["docker", "exec", *terminal, *names, *databases, *command])  # noqa: S606 - none is wanted


if __name__ == "__main__":
    sys.exit(carried_out(psql))
