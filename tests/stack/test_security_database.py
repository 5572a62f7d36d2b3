"""The database's roles: superuser evaluates nothing that another role could have made."""

import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.app.postgres import image
from tests.stack import hostile
from tests.stack.stack import REPOSITORY, docker, poll

SECRETS = (
    *("secrets/database-password", "secrets/postgres-password"),
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
"""


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

    def roles(self) -> None:
        """Run db/roles.sql as compose.yaml does."""
        service = REPOSITORY / "compose.yaml"
        options = service.read_text().partition("PGOPTIONS: >-\n")[2].partition("    volumes:")[0]
        pinned = f"PGOPTIONS={' '.join(options.split())}"
        psql = ("psql", "--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1", "--dbname=postgres")
        said = self.run("env", pinned, *psql, "--file=/roles.sql")
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


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    """A fresh one, with secrets where they are to be."""
    container = docker(
        *("run", "--detach", "--network=none", "--env=POSTGRES_HOST_AUTH_METHOD=trust"),
        f"--volume={REPOSITORY}/db/roles.sql:/roles.sql:ro",
        f"--volume={REPOSITORY}/backup:/berth:ro",
        *(image(), "-c", "fsync=off"),
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
