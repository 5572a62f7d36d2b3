"""`make psql`: a prompt in the app's database, or SQL="select 1", as the role that owns the schema.

Never as superuser, with whose rights a view or function of the app's would run.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from host.commands import UserError, carried_out
from ops import one_shots
from ops.docker import compose
from ops.stack import MIGRATE, Stack, ids, running

# As `migrate` logs in, which knows the owner's password. None of it shows in `docker inspect`.
_SAY = """
import json, os, pathlib
print(json.dumps({name: text for name, text in os.environ.items() if name.startswith("PG")}))
authority = os.environ.get("PGSSLROOTCERT")
print(json.dumps(pathlib.Path(authority).read_text() if authority else ""))
"""
_AUTHORITY = "/tmp/ca.pem"  # noqa: S108 - of a container that is ours alone
# It gets the authority's certificates, says so, and stays for as long as its standard input.
_WAIT = f'head -c "$1" > {_AUTHORITY}; echo; exec cat'


def psql() -> None:
    """Become psql where the database is, or run it where one that is elsewhere can be reached.

    Raises:
        UserError: There is no database to log in to.
    """
    stack = Stack.read()
    databases = ids(running(stack.containers("db")))
    if not databases and not stack.database_is_elsewhere:
        raise UserError("the database does not run: `make up`")
    one_off = ("run", "--rm", "--no-deps", "--no-TTY", *one_shots.by_present_url(stack))
    said = compose(*one_off, MIGRATE, "python", "-m", "_berth.run", "python", "-c", _SAY)
    variables, authority = (json.loads(line) for line in said.splitlines()[-2:])
    variables["PSQL_HISTORY"] = os.devnull  # else it is kept beside the data
    if authority:
        variables["PGSSLROOTCERT"] = _AUTHORITY
    os.environ.update(variables)
    if not stack.database_is_elsewhere:
        os.execvp("docker", _exec(databases[0], variables))  # noqa: S606 - no shell is wanted
    with _beside_migrate(stack, authority) as container:
        done = subprocess.run(_exec(container, variables), check=False)
    sys.exit(done.returncode)


def _exec(container: str, variables: Iterable[str]) -> list[str]:
    # A large answer comes in pieces: the client's memory may be that of the database.
    command = ["psql", "--no-psqlrc", "--set=FETCH_COUNT=1000"]
    sql = os.environ.get("SQL")
    at_terminal = sys.stdin.isatty() and sys.stdout.isatty() and not sql
    if not at_terminal:
        command.append("--set=ON_ERROR_STOP=1")
    if sql:
        command.append(f"--command={sql}")
    terminal = ["--interactive", *(["--tty"] if at_terminal else [])]
    names = [f"--env={name}" for name in variables]
    return ["docker", "exec", *terminal, *names, container, *command]


@contextmanager
def _beside_migrate(stack: Stack, authority: str) -> Iterator[str]:
    """Have a container with psql where `migrate` reaches a database elsewhere; yields its name."""
    (network,) = stack.service(MIGRATE)["networks"]
    name = f"{stack.project}-psql-{os.getpid()}"
    with subprocess.Popen(
        [
            *("docker", "run", "--rm", "--interactive", f"--name={name}", "--log-driver=none"),
            *("--read-only", "--cap-drop=ALL", "--memory=256m", "--pull=never", "--user=postgres"),
            # The image declares a volume there.
            *("--tmpfs=/tmp", "--tmpfs=/var/lib/postgresql", "--entrypoint=sh"),
            f"--network={stack.configuration['networks'][network]['name']}",
            *(stack.service("db")["image"], "-c", _WAIT, "psql", f"{len(authority.encode())}"),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as container:
        assert container.stdin  # noqa: S101 - for the type checker
        assert container.stdout  # noqa: S101
        container.stdin.write(authority)
        container.stdin.flush()
        if not container.stdout.readline():
            _, said = container.communicate()
            raise UserError(f"psql does not start: {said.strip()}")
        try:
            yield name
        finally:
            container.stdin.close()


if __name__ == "__main__":
    sys.exit(carried_out(psql))
