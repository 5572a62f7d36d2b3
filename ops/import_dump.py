"""`make import FILE=dump`: bring another database's tables and rows into a stack without any.

They are replayed into a database beside the present one, by the role that owns the schema, and
migrated there; that takes the present one's place once it is whole. So whatever fails leaves what
was.
"""

import sys
import time
from collections.abc import Mapping
from contextlib import suppress

from host.commands import UserError
from ops import dumps, lock, one_shots, program, recovery
from ops.docker import DockerError, compose, docker
from ops.images import Images
from ops.stack import Stack, running
from ops.terminal import Terminal

_HERE = "berth"
_BESIDE = "berth_import"
_PROGRESS_SECONDS = 10
# As compose.yaml has it for db/roles.sql.
_PINNED = "-c search_path=pg_catalog -c role=none -c standard_conforming_strings=on"

# What only a superuser may make: those that somebody made in the present database, as one.
_EXTENSIONS = """
SELECT concat(
    CASE WHEN nspname NOT IN ('public', 'pg_catalog') THEN
        format('CREATE SCHEMA IF NOT EXISTS %I AUTHORIZATION berth_owner; ', nspname) END,
    format('CREATE EXTENSION %I SCHEMA %I;', extname, nspname))
FROM pg_extension
JOIN pg_namespace ON pg_namespace.oid = extnamespace
JOIN pg_roles ON pg_roles.oid = extowner
WHERE rolsuper AND extname <> 'plpgsql'
ORDER BY pg_extension.oid
"""
# What watches the database would come back at once; db/roles.sql lets it in again.
_ALONE = """
REVOKE CONNECT ON DATABASE berth FROM berth, metrics;
SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity
WHERE datname IN ('berth', 'berth_import', 'berth_before_import');
"""
_SWAP = """BEGIN;
ALTER DATABASE berth RENAME TO berth_before_import;
ALTER DATABASE berth_import RENAME TO berth;
COMMIT;
"""
_BACK = """BEGIN;
ALTER DATABASE berth RENAME TO berth_import;
ALTER DATABASE berth_before_import RENAME TO berth;
COMMIT;
"""


def import_dump(terminal: Terminal) -> None:
    """Import what FILE says.

    Raises:
        UserError: That fails, or there are rows already; what was there is there.
    """
    began = time.monotonic()
    stack = Stack.read()
    stack.require_own_database("replay the dump there, with its provider's or PostgreSQL's tools")
    dump = dumps.given()
    with lock.held(stack, "import"):
        images = Images(stack)
        image = images.current()
        if not image or not running(stack.containers("db")):
            raise UserError("the database does not run: `make up`")
        places = Places(stack)
        places.refuse_rows()
        try:
            with terminal.step(f"replaying {dump.shown.removeprefix('FILE=')}"):
                places.make()
                counted = replay(stack, dump, terminal)
            one_shots.migrate(stack, images, images.adopt(image), terminal, _BESIDE)
            recovery.change_places(stack, places, lambda: None, terminal)
        except BaseException:
            with suppress(DockerError):
                places.remove()
            raise
    terminal.say("\n".join(f"  {table} has {rows} rows" for table, rows in counted.items()))
    total = sum(counted.values())
    terminal.say(f"imported {total} rows, {time.monotonic() - began:.1f} s in all")


class Places(recovery.Places):
    """Two databases of one server."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack

    def refuse_rows(self) -> None:
        """Refuse to replace what would be missed.

        Raises:
            UserError: There are rows.
        """
        found = ask(self._stack, "rows", _HERE).splitlines()
        if found:
            more = f" and {len(found) - 1} more" if found[1:] else ""
            raise UserError(
                f"the database has rows already, in {found[0]}{more}, and nothing is imported over "
                f"them: if nobody needs them, `make psql SQL='TRUNCATE {found[0]} CASCADE'`"
            )

    def make(self) -> None:
        """Make the new one, empty; what an import left that was killed is gone."""
        self.remove()
        self.keep()
        one_shots.own(_BESIDE)
        superuser(superuser(_EXTENSIONS, _HERE), _BESIDE)

    def remove(self) -> None:
        """Remove the new one."""
        superuser("DROP DATABASE IF EXISTS berth_import WITH (FORCE)")

    def swap(self) -> None:
        """Put the new one in the old one's place, which still has no rows."""
        self.refuse_rows()
        superuser(_ALONE)
        superuser(_SWAP)

    def back(self) -> None:
        """Put the old one in its place again."""
        if superuser("SELECT datname FROM pg_database WHERE datname = 'berth_before_import'"):
            superuser(_ALONE)
            superuser(_BACK)

    def keep(self) -> None:
        """Remove the old one."""
        superuser("DROP DATABASE IF EXISTS berth_before_import WITH (FORCE)")


def replay(stack: Stack, dump: dumps.Dump, terminal: Terminal) -> Mapping[str, int]:
    """Replay a dump into the database beside, and return the rows of each table.

    Raises:
        UserError: That fails, or the source had other rows.
    """
    try:
        with dump.opened(stack) as source:
            feed = source.dump if source else None
            command = in_network(stack, "replay", _BESIDE, options=dump.options())
            try:
                said = docker(
                    *command,
                    feed=feed,
                    merged=True,
                    given_up_by=terminal,
                    meanwhile=Progress(terminal),
                    quoted=1,
                )
            except DockerError as error:
                raise UserError((source and source.complaint()) or str(error)) from None
            expected = source.rows() if source else None
    except UserError as error:
        raise UserError(f"{dump.shown}: {way_out(str(error))}") from None
    if said:
        terminal.say(said)
    counted = dumps.counts(ask(stack, "count", _BESIDE).splitlines())
    for table in sorted({*(expected or counted), *counted}):
        there, here = (rows.get(table, 0) for rows in (expected or counted, counted))
        if there != here:
            raise UserError(f"{dump.shown}: {table} has {there} rows there, and {here} came here")
    return counted


class Progress:
    """Says now and then how large the new database is."""

    def __init__(self, terminal: Terminal) -> None:
        self._terminal = terminal
        self._next = time.monotonic() + _PROGRESS_SECONDS

    def __call__(self) -> None:
        if time.monotonic() < self._next:
            return
        self._next = time.monotonic() + _PROGRESS_SECONDS
        with suppress(DockerError):
            size = superuser(f"SELECT pg_database_size('{_BESIDE}')")
            self._terminal.add(f"{int(size) / 1e9:.1f} GB")


def way_out(complaint: str) -> str:
    """Return what PostgreSQL complains of, and what to do about it where only a superuser can."""
    _, found, extension = complaint.partition("permission denied to create extension ")
    if not found:
        return complaint
    command = f"CREATE EXTENSION {extension.split()[0]}"
    return (
        f"{complaint}: only a superuser may; if you trust it, `docker compose exec db psql "
        f"--dbname={_HERE} --command='{command}'`, and the import makes it as well"
    )


def in_network(stack: Stack, *arguments: str, options: list[str]) -> list[str]:
    """Return what has docker run a step with the owner's password, and the database in reach."""
    named = stack.configuration
    network, secrets = named["networks"]["data"]["name"], named["volumes"]["owner-secrets"]["name"]
    both = (f"--network={network}", f"--volume={secrets}:/run/secrets:ro")
    return dumps.step(stack, *arguments, options=(*both, *options))


def ask(stack: Stack, *arguments: str) -> str:
    """Return what a step says that needs no dump."""
    return docker(*in_network(stack, *arguments, options=["--user=postgres"]))


def superuser(statements: str, database: str = "postgres") -> str:
    """Run statements as superuser, which finds names in pg_catalog alone.

    Raises:
        DockerError: One fails.
    """
    psql = ("psql", "--no-psqlrc", "--quiet", "--tuples-only", "--no-align")
    return compose(
        *("exec", "--no-TTY", f"--env=PGOPTIONS={_PINNED}", "db", *psql),
        *("--set=ON_ERROR_STOP=1", f"--dbname={database}", "--file=-"),
        stdin=statements,
    )


if __name__ == "__main__":
    sys.exit(program.run(import_dump, "`make import` begins again"))
