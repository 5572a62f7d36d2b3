"""The database's roles: superuser evaluates nothing that another role could have made."""

import json
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.berth.postgres import image
from tests.stack import hostile
from tests.stack.stack import REPOSITORY, Stack, docker, poll, running
from tests.stack.writer import writing

SECRETS = (
    *("secrets/berth", "secrets/postgres-password"),
    *("owner-secrets/database-password", "metrics-secrets/postgres-password"),
)
# As Berth had it before there was an owner.
LEGACY = """
ALTER DATABASE berth OWNER TO berth;
REVOKE ALL ON DATABASE berth FROM PUBLIC, berth, metrics;
GRANT ALL ON DATABASE berth TO berth;
REVOKE USAGE ON SCHEMA public FROM berth;
REASSIGN OWNED BY berth_owner TO berth;
DROP OWNED BY berth_owner;
DROP ROLE berth_owner;
DROP OWNED BY berth_clone;
DROP ROLE berth_clone;
"""
# And its password, when the app logged in by one name.
LEGACY_FILES = "cd /to && cp --remove-destination berth database-password && rm berth"


class Cluster:
    """A database server by itself."""

    def __init__(self, container: str) -> None:
        self._container = container

    def container(self) -> str:
        """Return what it runs in."""
        return self._container

    def run(self, *command: str, stdin: str = "", check: bool = True) -> str:
        """Return what a command prints in it on both outputs."""
        done = subprocess.run(
            ["docker", "exec", "--interactive", "--user=postgres", self.container(), *command],
            input=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=120,
        )
        assert not check or done.returncode == 0, f"{command}: {done.stdout}"
        return done.stdout

    def sql(self, statements: str, role: str = "postgres", database: str = "berth") -> str:
        """Run statements as a role; PostgreSQL's own settings, whatever was set for the role."""
        psql = ("psql", "--no-psqlrc", "--quiet", "-At", "--set=ON_ERROR_STOP=1")
        ours = "PGOPTIONS=-c search_path=public -c role=none -c statement_timeout=0"
        login = (f"--username={role}", f"--dbname={database}", "--file=-")
        return self.run("env", ours, *psql, *login, stdin=statements).strip()

    def psql(self, role: str) -> list[str]:
        """Return the command by which a role logs in."""
        return ["psql", "--no-psqlrc", "--quiet", "-At", "--dbname=berth", f"--username={role}"]

    def allowed(self, role: str, statements: tuple[str, ...]) -> list[str]:
        """Return which of the statements succeed; none of them stays."""
        alone = ("CREATE DATABASE", "ALTER SYSTEM")  # in no transaction
        script = "".join(
            f"{'' if one.startswith(alone) else 'BEGIN;'}\n{one};\n"
            f"\\if :ERROR\n\\else\n\\echo ALLOWED {number}\n\\endif\nROLLBACK;\n"
            for number, one in enumerate(statements)
        )
        said = self.run(*self.psql(role), "--file=-", stdin=script)
        numbers = [line.split()[1] for line in said.splitlines() if line.startswith("ALLOWED")]
        return [statements[int(number)] for number in numbers]

    def roles(self, *settings: str) -> None:
        """Run db/roles.sql as compose.yaml does."""
        service = REPOSITORY / "compose.yaml"
        options = service.read_text().partition("PGOPTIONS: >-\n")[2].partition("    volumes:")[0]
        pinned = f"PGOPTIONS={' '.join(options.split())}"
        psql = ("psql", "--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1", "--dbname=postgres")
        said = self.run("env", pinned, *psql, "--file=/roles.sql", *settings)
        assert said == ""

    def dump(self) -> list[str]:
        """Return all there is of roles, and of the schema with who may do what, in any order."""
        same = "--restrict-key=x"
        roles = self.run("pg_dumpall", "--roles-only", "--no-role-passwords", same)
        schema = self.run("pg_dump", "--create", "--schema-only", same, "berth")
        return sorted((roles + schema).splitlines())

    def is_unharmed(self) -> bool:
        """Whether nothing has run as superuser, and no role has become one."""
        supers = self.sql("SELECT rolname FROM pg_roles WHERE rolsuper", database="postgres")
        return supers == "postgres" and self.run("ls", "/tmp") == ""  # noqa: S108


@contextmanager
def alone(reference: str, *options: str) -> Iterator[Cluster]:
    """Run a fresh one, with secrets where they are to be."""
    container = docker(
        *("run", "--detach", "--network=none", "--env=POSTGRES_HOST_AUTH_METHOD=trust"),
        f"--volume={REPOSITORY}/db/roles.sql:/roles.sql:ro",
        *(*options, reference, "-c", "fsync=off"),
    ).splitlines()[-1]
    try:
        ready = ("docker", "exec", container, "pg_isready", "--quiet", "--host=127.0.0.1")
        poll("its start", lambda: subprocess.run(ready, check=False).returncode == 0)
        files = " ".join(f"/run/{secret}" for secret in SECRETS)
        script = f"for f in {files}; do mkdir -p ${{f%/*}}; echo secret > $f; done"
        docker("exec", container, "bash", "-c", script)
        yield Cluster(container)
    finally:
        docker("rm", "--force", "--volumes", container)


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    """A fresh one, which may check what was restored."""
    with alone(image(), f"--volume={REPOSITORY}/backup:/berth:ro") as found:
        yield found


def test_whatever_is_found_ends_with_the_same_roles(cluster: Cluster) -> None:
    """Once more, after a first start that was killed between any two steps, and from before."""
    cluster.roles()
    fresh = cluster.dump()
    assert "ALTER DATABASE berth OWNER TO berth_owner;" in fresh
    cluster.roles()
    assert cluster.dump() == fresh
    cluster.sql("DROP DATABASE berth", database="postgres")
    cluster.roles()
    assert cluster.dump() == fresh
    cluster.sql("DROP DATABASE berth; DROP ROLE berth_owner", database="postgres")
    cluster.sql("CREATE DATABASE berth OWNER berth", database="postgres")
    cluster.roles()
    assert cluster.dump() == fresh


def test_a_stack_from_before_is_brought_over_whatever_its_role_left(cluster: Cluster) -> None:
    """It ends where one made today does; nothing of what it finds is evaluated by superuser."""
    cluster.roles()
    everything = hostile.CANARY + hostile.OVERLOADS + hostile.OBJECTS
    cluster.sql(everything, role="berth_owner")
    cluster.sql("ALTER FUNCTION public.as_maker SECURITY INVOKER")
    today = cluster.dump()
    cluster.sql(LEGACY)
    settings = hostile.SETTINGS + hostile.NUISANCES
    cluster.sql(settings.format(role="berth"), role="berth")
    cluster.roles()
    assert cluster.dump() == today
    assert cluster.is_unharmed()


def test_a_check_of_a_restored_database_runs_nothing_of_its(cluster: Cluster) -> None:
    """Rows and indexes are looked at, whatever a malicious migration has left among them."""
    cluster.roles()
    version = "CREATE TABLE alembic_version (version_num text); INSERT INTO alembic_version"
    cluster.sql(f"{version} VALUES ('0001')", role="berth_owner")
    made = hostile.CANARY + hostile.OVERLOADS + hostile.OBJECTS + hostile.FALSE_VERSION
    settings = hostile.SETTINGS + hostile.NUISANCES
    cluster.sql(made + settings.format(role="berth_owner"), role="berth_owner")
    source = "source /berth/lib.sh; source /berth/recover.sh; DATABASE=berth; check"
    said = cluster.run("bash", "-euo", "pipefail", "-c", f"{source}; echo $found")
    assert "public.true_version has 1 rows" in said
    assert said.splitlines()[-1].endswith(
        "rows, schema at unknown, since alembic_version is no table"
    )
    assert cluster.is_unharmed()


def test_a_first_start_that_is_killed_begins_again(tmp_path: Path) -> None:
    """At any moment: half of a cluster is never taken for a whole one."""
    tmp_path.chmod(0o755)
    (tmp_path / "postgres-password").write_text("secret")
    service = json.loads(docker("compose", "config", "--format=json"))["services"]["db"]
    variables = [f"--env={name}={value}" for name, value in service["environment"].items()]
    container = docker(
        *("run", "--detach", "--network=none", "--user=postgres", "--entrypoint=bash", *variables),
        f"--volume={REPOSITORY}/db/start.sh:/start.sh:ro",
        f"--volume={tmp_path}:/run/secrets:ro",
        *(image(), "/start.sh", "postgres", "-c", "fsync=off"),
    ).splitlines()[-1]
    try:
        for seconds in (0.1, 0.3, 0.6, 1.0):
            time.sleep(seconds)
            docker("kill", container)
            docker("start", container)
        ready = ("docker", "exec", container, "pg_isready", "--quiet", "--host=127.0.0.1")
        poll("its start", lambda: subprocess.run(ready, check=False).returncode == 0)
        rules = "SELECT count(*) FROM pg_hba_file_rules WHERE type = 'host' AND address = 'all'"
        assert Cluster(container).sql(rules, database="postgres") == "1"
    finally:
        docker("rm", "--force", "--volumes", container)


def test_who_holds_a_table_delays_that_but_does_not_prevent_it(cluster: Cluster) -> None:
    """Whoever works waits for half a second at most; who sleeps in a transaction is ended."""
    cluster.roles()
    cluster.sql("CREATE TABLE items (id int)", role="berth_owner")
    cluster.sql(LEGACY)
    held = "BEGIN; LOCK TABLE items IN ACCESS SHARE MODE; SELECT pg_sleep(1000)"
    psql = ("psql", "--username=berth", "--dbname=berth", f"--command={held}")
    docker("exec", "--detach", cluster.container(), *psql)
    sleeps = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'BEGIN; LOCK%'"
    poll("the lock", lambda: cluster.sql(sleeps) == "1")
    cluster.roles()
    assert cluster.sql(sleeps) == "0"
    owner = "SELECT relowner::regrole::text FROM pg_class WHERE relname = 'items'"
    assert cluster.sql(owner) == "berth_owner"


def test_the_app_is_the_same_by_either_name(cluster: Cluster) -> None:
    """It may do the same, and is `berth` to whoever asks, until the name is taken from it."""
    script = "cp /run/secrets/berth /run/secrets/berth_clone"
    docker("exec", cluster.container(), "bash", "-c", script)
    cluster.roles()
    both = cluster.dump()
    made = "CREATE TABLE items (name text); CREATE TABLE alembic_version (version_num text)"
    cluster.sql(made, role="berth_owner")
    rows = (
        *("SELECT count(*) FROM items", "DELETE FROM items", "UPDATE items SET name = 'x'"),
        *("INSERT INTO items (name) VALUES ('x')", "SELECT lo_unlink(lo_create(0))"),
    )
    for name in ("berth", "berth_clone"):
        # As a pool does between two uses.
        said = ("--command=DISCARD ALL", "--command=SELECT count(*) FROM items")
        assert cluster.run(*cluster.psql(name), *said) == "0\n"
        assert cluster.run(*cluster.psql(name), "--command=SELECT current_user") == "berth\n"
        assert cluster.allowed(name, rows) == list(rows)
        assert cluster.allowed(name, hostile.OWNERS) == []
        assert cluster.allowed(name, hostile.FORBIDDEN) == []
    # `sql` logs in without its settings.
    cluster.sql("SELECT lo_create(1)", role="berth_clone")
    cluster.run(*cluster.psql("berth_clone"), "--command=SELECT lo_create(2)")
    cluster.sql("ALTER ROLE berth_clone SET role = 'none'", role="berth_clone")
    sleeping = ("--command=SELECT pg_sleep(1000)",)
    docker("exec", "--detach", cluster.container(), *cluster.psql("berth_clone"), *sleeping)
    sleeps = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'berth_clone'"
    poll("the session", lambda: cluster.sql(sleeps) == "1")
    cluster.roles()
    assert cluster.sql(sleeps) == "1"
    for number in (1, 2):
        assert cluster.allowed("berth", (f"SELECT lo_put({number}, 0, 'x')",))
    owners = "SELECT DISTINCT lomowner::regrole::text FROM pg_largeobject_metadata"
    assert cluster.sql(owners) == "berth_owner"
    docker("exec", cluster.container(), "rm", "/run/secrets/berth_clone")
    cluster.roles()
    assert cluster.sql(sleeps) == "0"
    with pytest.raises(AssertionError, match="not permitted to log in"):
        cluster.sql("SELECT 1", role="berth_clone")
    left = "SELECT rolpassword IS NULL FROM pg_authid WHERE rolname = 'berth_clone'"
    assert cluster.sql(left) == "t"
    cluster.sql("ALTER ROLE berth_clone LOGIN; DROP TABLE items, alembic_version")
    cluster.sql("SELECT lo_unlink(1), lo_unlink(2)")
    assert cluster.dump() == both


class Live(Cluster):
    """The database of a stack, whose roles log in as they would from a replica."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack

    def container(self) -> str:
        """Return what runs `db`; a restore starts it anew."""
        (db,) = self.stack.containers("db")
        return str(db["Id"])

    def password(self, role: str) -> str:
        """Return a role's, out of the volume that it is in."""
        volume = {"berth_owner": "owner-secrets", "metrics": "metrics-secrets"}.get(role, "secrets")
        file = {"berth_owner": "database-password", "metrics": "postgres-password"}.get(role, role)
        mount = f"--volume={self.stack.project}_{volume}:/from:ro"
        return docker("run", "--rm", "--network=none", mount, image(), "cat", f"/from/{file}")

    def psql(self, role: str) -> list[str]:
        """Return the command by which a role logs in."""
        psql = ["psql", "--no-psqlrc", "--quiet", "-At", "--dbname=berth"]
        if role == "postgres":
            return [*psql, "--set=ON_ERROR_STOP=1"]
        password = f"PGPASSWORD={self.password(role)}"
        return ["env", password, *psql, "--host=127.0.0.1", f"--username={role}"]

    def app(self) -> str:
        """Return the name by which the app logs in now."""
        return self.run("readlink", "/run/secrets/database-password").strip()

    def sql(self, statements: str, role: str = "postgres", database: str = "berth") -> str:
        """Run statements as a role."""
        psql = [*self.psql(role), "--set=ON_ERROR_STOP=1", f"--dbname={database}", "--file=-"]
        return self.run(*psql, stdin=statements).strip()

    def besiege(self) -> None:
        """Open sessions as the app's role that do not end by themselves."""
        for statements in hostile.SIEGE:
            psql = (*self.psql(self.app()), f"--command={statements}")
            docker("exec", "--detach", self.container(), *psql)

    def is_unharmed(self) -> bool:
        """Whether nothing has run as superuser: neither here nor where backups are and proven."""
        supers = self.sql(
            "SELECT rolname FROM pg_catalog.pg_roles WHERE rolsuper", database="postgres"
        )
        files = [
            self.stack.compose("exec", "-T", service, "bash", "-c", "ls /tmp /backups || true")
            for service in ("db", "backup", "proof")
        ]
        return supers == "postgres" and "canary" not in "".join(files)


@pytest.fixture(scope="module")
def live() -> Iterator[Live]:
    """A stack that keeps backups, and proves them with the least memory."""
    with running("berth-test-roles", scale=2, BACKUP_DIR="backups", BACKUP_MEMORY="64m") as stack:
        poll("the first answer", stack.answers)
        yield Live(stack)


def test_the_apps_role_reads_and_writes_rows_and_nothing_more(live: Live) -> None:
    """Nor can the owner do what is superuser's; `berth` cannot even make a temporary table."""
    rows = (
        *("SELECT count(*) FROM items", "DELETE FROM items", "UPDATE items SET name = 'x'"),
        "INSERT INTO items (name) VALUES ('x')",
    )
    assert live.allowed("berth", rows) == list(rows)
    assert live.allowed("berth", hostile.OWNERS) == []
    assert live.allowed("berth", hostile.FORBIDDEN) == []
    assert live.allowed("berth_owner", hostile.FORBIDDEN) == []
    assert live.allowed("berth_owner", hostile.OWNERS[:1]) == list(hostile.OWNERS[:1])
    for database in ("postgres", "template1"):
        with pytest.raises(AssertionError, match="permission denied for database"):
            live.sql("SELECT 1", role="berth", database=database)


def test_a_running_stack_is_brought_over_without_losing_a_request(live: Live) -> None:
    """By plain `docker compose up`, from one role that owned everything."""
    live.sql("ALTER ROLE berth_owner RESET ALL")  # what a migration has set for its own sessions
    today = live.dump()
    live.sql(LEGACY)
    assert live.allowed("berth", hostile.OWNERS[:1])
    volume = f"--volume={live.stack.project}_secrets:/to"
    docker("run", "--rm", "--network=none", volume, image(), "bash", "-c", LEGACY_FILES)
    with writing(live.stack, "brought-over") as writer:
        live.stack.up(scale=2)
        writer.await_more()
    assert not writer.refused
    assert live.dump() == today
    assert live.allowed("berth", hostile.OWNERS) == []


def test_what_hostile_roles_leave_never_runs_as_superuser(live: Live) -> None:
    """Not even the owner's, as of a malicious migration; and backups, proofs and all go on."""
    stack = live.stack
    made = hostile.CANARY + hostile.OVERLOADS + hostile.OBJECTS + hostile.FALSE_VERSION
    live.sql(made + hostile.SETTINGS.format(role="berth_owner"), role="berth_owner")
    live.sql("ALTER ROLE berth SET search_path = public, pg_catalog", role="berth")
    live.besiege()
    assert "pg_catalog" in live.sql("SHOW search_path", role="metrics").splitlines()
    for command in ("backup", "verify-backup", "rotate-secrets", "up"):
        stack.run("make", command)
        assert live.is_unharmed(), command
    said = stack.doctor()
    assert "proven" in said["backups"]["says"]
    stack.run("make", "advise", "SECONDS=1")
    assert live.is_unharmed()
    live.besiege()
    stack.run("make", "restore", "YES=1")
    assert live.is_unharmed()
    stack.run("make", "backup")
    stack.run("make", "verify-backup")
    assert live.is_unharmed()
