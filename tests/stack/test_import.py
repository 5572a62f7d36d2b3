"""A dump becomes the stack's data, whole or not at all, and as nobody but the schema's owner."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from host import images
from tests.berth.postgres import PASSWORD, Postgres, image
from tests.stack.stack import REPOSITORY, Stack, docker, poll, running
from tests.stack.test_backup import names, post, psql
from tests.stack.test_security_database import Cluster, alone

OLDER = "postgres:17.6"
NEWEST = pytest.mark.parametrize("cluster", ["newest"], indirect=True)
ROLES = """
CREATE ROLE shop LOGIN;
CREATE ROLE reader;
CREATE DATABASE old OWNER shop;
"""
# What takes most to bring over: other owners, other schemas, what looks like a dump's own words.
OLD = r"""
CREATE EXTENSION citext;
CREATE SCHEMA "Stock; x";
CREATE TYPE "Stock; x".size AS ENUM ('s', 'm');
CREATE TABLE items (id serial PRIMARY KEY, name citext UNIQUE, size "Stock; x".size);
COMMENT ON TABLE items IS 'of the old shop';
INSERT INTO items (name) VALUES ('plain'), (E'back\\slash'), (E'\\.'), (E'\\! touch /tmp/canary'),
    (E'--\n-- Name: x; Type: ACL; Schema: -; Owner: -\n--\n'), (E'\restrict'), (NULL);
CREATE TABLE "Stock; x"."Many lines" (
    id bigint GENERATED ALWAYS AS IDENTITY, item int REFERENCES items, made timestamptz);
INSERT INTO "Stock; x"."Many lines" (item, made) SELECT 1, now() FROM generate_series(1, 1000);
CREATE FUNCTION "Stock; x".owners() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
ALTER TABLE items OWNER TO shop;

-- This line stays, too.
    RETURN NEW;
END $$;
CREATE TRIGGER owners AFTER UPDATE ON items EXECUTE FUNCTION "Stock; x".owners();
CREATE VIEW named AS SELECT name FROM items;
CREATE MATERIALIZED VIEW counted AS SELECT count(*) FROM items;
CREATE INDEX many_index ON "Stock; x"."Many lines" (made);
SELECT lo_from_bytea(4711, '\xdeadbeef');
GRANT SELECT ON items TO reader;
GRANT USAGE ON SCHEMA "Stock; x" TO reader;
ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO reader;
CREATE PUBLICATION others FOR TABLE items;
"""
AS_SUPERUSER = """
CREATE FUNCTION public.harmless() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END';
CREATE EVENT TRIGGER everywhere ON ddl_command_end EXECUTE FUNCTION public.harmless();
"""
FORMATS = {
    "plain": "--format=plain --file=/tmp/plain",
    "inserts": "--format=plain --inserts --clean --create --file=/tmp/inserts",
    "gz": "--format=plain --compress=gzip --file=/tmp/gz",
    "custom": "--format=custom --file=/tmp/custom",
    "directory": "--format=directory --file=/tmp/directory",
    "tar": "--format=tar --file=/tmp/tar",
}


class Importing(Cluster):
    """A database server with db/import.sh, as `db` and as what runs it."""

    def replayed(self, dump: str, *, check: bool = True) -> str:
        """Replay a dump into an empty database; returns what is said."""
        self.sql("DROP DATABASE IF EXISTS berth_import", database="postgres")
        self.roles("--set=database=berth_import")
        self.run("ln", "--symbolic", "--force", "--no-dereference", dump, "/tmp/dump")  # noqa: S108
        return self.run("bash", "/berth/import.sh", "replay", "berth_import", check=check)

    def content(self, database: str) -> list[str]:
        """Return all there is in a database, but for whose it is."""
        ours = ("--no-owner", "--no-privileges", "--no-publications", "--restrict-key=x")
        lines = self.run("pg_dump", *ours, database).splitlines()
        return [line for line in lines if not line.startswith(("-- Name:", "-- Data for Name:"))]


@pytest.fixture(scope="module", params=["newest", "older"])
def cluster(request: pytest.FixtureRequest) -> Iterator[Importing]:
    """One with the old database, of which there is a dump in each format."""
    reference = image() if request.param == "newest" else OLDER
    images.ensure([reference])
    with alone(
        reference, f"--volume={REPOSITORY}/db:/berth:ro", "--add-host=db:127.0.0.1"
    ) as found:
        script = "ln -s /tmp/dump /dump; ln -s ../owner-secrets/database-password /run/secrets"
        docker("exec", found.container(), "sh", "-c", script)
        cluster = Importing(found.container())
        cluster.roles()
        cluster.sql(ROLES, database="postgres")
        cluster.sql(OLD, role="shop", database="old")
        cluster.sql(AS_SUPERUSER, database="old")
        for options in FORMATS.values():
            cluster.run("pg_dump", *options.split(), "old")
        cluster.sql("DROP EVENT TRIGGER everywhere", database="old")
        yield cluster


@pytest.mark.parametrize("form", FORMATS)
def test_dump_of_every_format_comes_over_as_it_is(cluster: Importing, form: str) -> None:
    """Its owners and grants do not: all is the schema's owner's, and the app gets its rows."""
    said = cluster.replayed(f"/tmp/{form}")  # noqa: S108
    left_out = ("EVENT TRIGGER everywhere", "PUBLICATION others", "PUBLICATION TABLE others items")
    assert set(said.splitlines()) == {f"  left out: {one}" for one in left_out}
    assert cluster.content("berth_import") == cluster.content("old")
    foreign = """SELECT count(*) FROM pg_class JOIN pg_namespace n ON n.oid = relnamespace
        WHERE relacl::text ~ 'shop|reader'
        OR nspname !~ '^pg_|information' AND relowner <> 'berth_owner'::regrole"""
    assert cluster.sql(foreign, database="berth_import") == "0"
    rows = """INSERT INTO items (name) VALUES ('new');
        UPDATE "Stock; x"."Many lines" SET made = NULL;
        SELECT lo_put(4711, 0, 'x');
        SELECT count(*) FROM named"""
    assert cluster.sql(rows, role="berth", database="berth_import").splitlines()[-1] == "8"
    with pytest.raises(AssertionError, match="must be owner of table items"):
        cluster.sql("DROP TABLE items", role="berth", database="berth_import")


@NEWEST
@pytest.mark.parametrize("form", FORMATS)
def test_dump_that_was_cut_off_is_refused(cluster: Importing, form: str) -> None:
    """Wherever: amid its rows, or only without its last line."""
    cut = f"/tmp/cut-{form}"  # noqa: S108
    if form == "directory":
        script = f"rm -rf {cut}; cp -r /tmp/{form} {cut}; rm $(ls {cut}/*.dat.gz | head -n 1)"
    else:
        script = f"head -c $(($(stat -c %s /tmp/{form}) / 2)) /tmp/{form} > {cut}"
    cluster.run("bash", "-c", script)
    assert cluster.replayed(cut, check=False).splitlines()[-1].startswith("it ends before its end")


@NEWEST
@pytest.mark.parametrize(
    ("lines", "says"),
    [
        (r"\! touch /tmp/canary", "backslash commands are restricted"),
        ("\\unrestrict x\n\\! touch /tmp/canary", "wrong key"),
        (r"SELECT 1 \g |touch /tmp/canary", "backslash commands are restricted"),
        (r"COPY public.items FROM PROGRAM 'touch /tmp/canary';", "permission denied to COPY"),
        ("ALTER ROLE CURRENT_USER SUPERUSER;", "permission denied to alter role"),
        ("RESET SESSION AUTHORIZATION; CREATE ROLE canary;", "permission denied to create role"),
        (
            "CREATE EXTENSION dblink SCHEMA public;",
            'permission denied to create extension "dblink"',
        ),
    ],
)
def test_hostile_dump_gains_nothing(cluster: Importing, lines: str, says: str) -> None:
    """Neither a command in the container that replays it, nor another role in the database."""
    plain = cluster.run("cat", "/tmp/plain")  # noqa: S108
    at = "CREATE TABLE public.items"
    assert at in plain
    cluster.run("bash", "-c", "cat > /tmp/hostile", stdin=plain.replace(at, f"{lines}\n{at}"))
    assert says in cluster.replayed("/tmp/hostile", check=False)  # noqa: S108
    assert "canary" not in cluster.run("ls", "/tmp")  # noqa: S108
    assert cluster.sql("SELECT rolname FROM pg_roles WHERE rolsuper") == "postgres"


@NEWEST
def test_what_is_no_dump_of_one_database_is_refused(cluster: Importing) -> None:
    """By what it is."""
    script = "pg_dumpall > /tmp/all; echo 'SELECT 1;' > /tmp/none; truncate --size=8T /tmp/huge"
    cluster.run("bash", "-c", script)
    said = cluster.replayed("/tmp/huge", check=False)  # noqa: S108
    assert said.startswith("it has 8796.1 GB or more, and Docker's disk has ")
    said = cluster.replayed("/tmp/all", check=False)  # noqa: S108
    assert said == "it is of several databases, by pg_dumpall: give one of pg_dump\n"
    said = cluster.replayed("/tmp/none", check=False)  # noqa: S108
    assert said == "it ends before its end, or is none that pg_dump made\n"


# Made by another role than will have it: a version of the example, and what was before it.
SHOP = """
CREATE ROLE shop;
CREATE DATABASE shop OWNER shop;
CREATE DATABASE people OWNER shop;
\\connect shop
SET ROLE shop;
CREATE TABLE alembic_version (version_num varchar(32) PRIMARY KEY);
INSERT INTO alembic_version VALUES ('0001');
CREATE TABLE items (
    id uuid PRIMARY KEY DEFAULT uuidv7(), name text NOT NULL, description text,
    quantity int NOT NULL DEFAULT 0, created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now());
INSERT INTO items (name) SELECT 'item ' || number FROM generate_series(1, 1000) AS number;
RESET ROLE;
\\connect people
CREATE SCHEMA extras;
CREATE EXTENSION moddatetime SCHEMA extras;
SET ROLE shop;
CREATE TABLE people AS SELECT generate_series(1, 3) AS id;
"""


@pytest.fixture(scope="module")
def old() -> Iterator[Postgres]:
    """The server that the data comes from."""
    server = Postgres()
    try:
        server.run()
        psql = ("psql", "--quiet", "--username=berth", "--set=ON_ERROR_STOP=1", "--file=-")
        done = subprocess.run(
            ["docker", "exec", "--interactive", server.name, *psql, "--dbname=postgres"],
            input=SHOP,
            text=True,
            check=True,
        )
        assert done.returncode == 0
        yield server
    finally:
        server.remove()


@pytest.fixture(scope="module")
def dump(old: Postgres, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One of what was before, that nobody but its owner may read."""
    file = tmp_path_factory.mktemp("dump") / "people.dump"
    command = [
        "docker",
        "exec",
        old.name,
        "pg_dump",
        "--format=custom",
        "--username=berth",
        "people",
    ]
    with file.open("wb") as out:
        subprocess.run(command, stdout=out, check=True)
    file.chmod(0o600)
    return file


@pytest.fixture(scope="module")
def fresh() -> Iterator[Stack]:
    """A stack with the tables that its migrations have made, and without rows."""
    with running("berth-test-import", scale=1) as stack:
        poll("the first answer", stack.answers)
        yield stack


def databases(stack: Stack) -> str:
    """Return the names of all there are."""
    return psql(stack, "SELECT string_agg(datname, ' ' ORDER BY datname) FROM pg_database")


ALL = "berth postgres template0 template1"


def written(folder: Path, statements: str) -> Path:
    """Return a dump with these statements."""
    file = folder / "written.sql"
    file.write_text(
        "--\n-- PostgreSQL database dump\n--\n--\n-- Name: x; Type: TABLE; Schema: public\n--\n"
        f"{statements}\n--\n-- PostgreSQL database dump complete\n--\n"
    )
    return file


def test_rows_are_not_imported_over(fresh: Stack, dump: Path) -> None:
    """The sentence names a table, and the way out; then they are gone."""
    post(fresh, "mine")
    refused = fresh.run("make", "import", f"FILE={dump}", check=False)
    way_out = "make psql SQL='TRUNCATE public.items CASCADE'"
    assert "the database has rows already, in public.items, and nothing is" in refused.stderr
    assert f"`{way_out}`" in refused.stderr
    assert names(fresh) == {"mine"}
    fresh.run("sh", "-c", way_out)
    assert names(fresh) == set()


def test_import_that_fails_leaves_what_was(fresh: Stack, dump: Path, tmp_path: Path) -> None:
    """A dump that was cut off, and one that the app's migrations do not fit; all is as before."""
    fresh.run("make", "psql", "SQL=TRUNCATE public.items CASCADE")
    before = fresh.containers("api")[0]["State"]["StartedAt"]
    cut = tmp_path / "cut.dump"
    cut.write_bytes(dump.read_bytes()[:-1000])
    unfit = written(tmp_path, "CREATE TABLE public.items (name text);")
    for file, says in (
        (cut, f"FILE={cut}: it ends before its end, or is none that pg_dump made: could not read"),
        (unfit, "`migrate` failed, so nothing else has changed; its last words:"),
        (tmp_path / "nowhere", f"FILE={tmp_path}/nowhere: there is no such file"),
    ):
        refused = fresh.run("make", "import", f"FILE={file}", check=False)
        assert refused.returncode != 0
        assert f"berth: {says}" in refused.stderr
    assert databases(fresh) == ALL
    assert fresh.containers("api")[0]["State"]["StartedAt"] == before
    assert fresh.answers("/items")


def test_row_that_is_written_meanwhile_is_kept(fresh: Stack, tmp_path: Path) -> None:
    """The import ends instead, when the app has stopped, and the app serves again."""
    fresh.run("make", "psql", "SQL=TRUNCATE public.items CASCADE")
    slow = written(tmp_path, "SELECT pg_sleep(5);")
    with ThreadPoolExecutor() as pool:
        importing = pool.submit(fresh.run, "make", "import", f"FILE={slow}", check=False)
        asleep = (
            "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(5)%' AND datname"
        )
        poll("the replay", lambda: psql(fresh, f"{asleep} = 'berth_import'") == "1")
        post(fresh, "meanwhile")
    says = "not done, what was there serves again: the database has rows already, in public.items"
    assert says in importing.result().stderr
    poll("the app", fresh.answers)
    assert names(fresh) == {"meanwhile"}
    assert databases(fresh) == ALL


def test_dump_becomes_the_apps_data(fresh: Stack, dump: Path) -> None:
    """Migrated and counted; with an extension that only a superuser may make, once one has."""
    fresh.run("make", "psql", "SQL=TRUNCATE public.items CASCADE")
    refused = fresh.run("make", "import", f"FILE={dump}", check=False).stderr
    assert 'permission denied to create extension "moddatetime": only a superuser may' in refused
    way_out = refused.partition("if you trust it, `")[2].partition("`")[0]
    fresh.run("sh", "-c", f"{way_out} < /dev/null")
    said = fresh.run("make", "import", f"FILE={dump}").stdout
    assert "1 migration (0001)" in said
    assert "  public.people has 3 rows\nimported 3 rows, " in said
    assert psql(fresh, "SELECT sum(id) FROM people", database="berth") == "6"
    post(fresh, "from now on")
    assert databases(fresh) == ALL
    assert fresh.doctor()["migrations"]["level"] == "good"


def test_url_is_dumped_in_one_snapshot_and_its_password_is_seen_nowhere(
    fresh: Stack, old: Postgres, tmp_path: Path
) -> None:
    """While others write there; no argument, and so nothing that the engine keeps, has it."""
    fresh.run("make", "psql", "SQL=TRUNCATE public.items, people CASCADE")
    writes = """DO $$ BEGIN LOOP
        INSERT INTO items (name) VALUES ('meanwhile'); COMMIT; PERFORM pg_sleep(0.001);
    END LOOP; END $$"""
    docker(
        *("exec", "--detach", old.name, "psql", "--username=berth", "--dbname=shop"),
        f"--command={writes}",
    )
    shim = tmp_path / "docker"
    shim.write_text(
        f'#!/bin/sh\necho "$@" >> {tmp_path}/seen\nexec {shutil.which("docker")} "$@"\n'
    )
    shim.chmod(0o755)
    path = f"PATH={tmp_path}:{os.environ['PATH']}"
    url = f"FILE=postgresql+asyncpg://berth@127.0.0.1:{old.port}/shop?sslmode=disable"
    refused = fresh.run("env", path, "PGPASSWORD=wrong", "make", "import", url, check=False)
    assert 'password authentication failed for user "berth"' in refused.stderr
    said = fresh.run("env", path, f"PGPASSWORD={PASSWORD}", "make", "import", url).stdout
    seen = (tmp_path / "seen").read_text()
    assert "import.sh source" in seen
    assert PASSWORD not in seen + said
    assert {"item 1", "item 1000", "meanwhile"} <= names(fresh)
    assert databases(fresh) == ALL
