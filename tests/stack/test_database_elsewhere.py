"""A database outside the project: over verified TLS, restarted, and failed over to its standby."""

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.ports import free_port
from tests.stack.authority import Authority
from tests.stack.stack import CHECKOUT, Stack, copy_of_repository, docker, image, poll, running
from tests.stack.writer import writing

PASSWORD = "p@ss/word"
# Which leads now here, now there.
HOST = "db.elsewhere.test"
NAME = f"berth-test-elsewhere-pg-{CHECKOUT}"
# The key must be the server's own; what is written is on both before it is acknowledged.
START = """
install -o postgres -g postgres -m 600 /tls/*-key.pem /tmp/key.pem
install -m 644 "$(echo /tls/*-key.pem | sed s/-key//)" /tmp/cert.pem
if [ -n "$PRIMARY" ] && [ ! -s "$PGDATA/PG_VERSION" ]; then
    install -d -o postgres -g postgres -m 700 "$PGDATA"
    until su postgres -c "pg_basebackup -h $PRIMARY -U postgres -D $PGDATA -R -X stream -c fast"
    do sleep .2; done
fi
exec docker-entrypoint.sh postgres -c ssl=on -c ssl_key_file=/tmp/key.pem \\
    -c ssl_cert_file=/tmp/cert.pem -c wal_retrieve_retry_interval=200ms
"""


@dataclass
class Elsewhere:
    """A primary and its standby, each on a port of this machine's.

    Attributes:
        address: Where both are published.
        ports: On which ports, the primary's first.
        authority: Who has signed their certificate.
    """

    address: str
    ports: tuple[int, int]
    authority: Authority

    def url(self, **changed: str) -> str:
        """Return the URL of both, with another `password`, other `hosts` or another `name`."""
        hosts = ",".join(f"{self.address}:{port}" for port in self.ports)
        password = changed.get("password", "p%40ss%2Fword")
        login = f"postgresql://shop:{password}@{changed.get('hosts', hosts)}"
        return f"{login}/{changed.get('name', 'shop')}?target_session_attrs=read-write\n"

    def start(self) -> None:
        """Start the primary, then its standby, and have each write wait for it."""
        docker("network", "create", NAME)
        self._run(0, "")
        self._until_ready(0)
        self.sql(0, "ALTER SYSTEM SET synchronous_commit = local")
        self.sql(0, f"CREATE ROLE shop LOGIN PASSWORD '{PASSWORD}'")
        self.sql(0, "CREATE DATABASE shop OWNER shop")
        hba = "echo 'host replication postgres all trust' >> \"$PGDATA/pg_hba.conf\""
        docker("exec", "--user=postgres", f"{NAME}-0", "bash", "-c", hba)
        self.sql(0, "SELECT pg_reload_conf()")
        self.add_standby(1, of=0)

    def add_standby(self, number: int, *, of: int) -> None:
        """Start one anew as a standby, and have each write wait for it."""
        docker("rm", "--force", "--volumes", f"{NAME}-{number}")
        self._run(number, f"{NAME}-{of}")
        self._until_ready(number)
        standbys = "SELECT count(*) FROM pg_stat_replication"
        poll("a standby", lambda: self.sql(of, standbys) == "1")
        self.sql(of, "ALTER SYSTEM RESET synchronous_commit")
        self.sql(of, "ALTER SYSTEM SET synchronous_standby_names = '*'")
        self.sql(of, "SELECT pg_reload_conf()")

    def promote(self, number: int) -> None:
        """Have a standby take over, which waits for none of its own."""
        self.sql(number, "ALTER SYSTEM RESET synchronous_standby_names")
        self.sql(number, "SELECT pg_promote()")

    def lead(self, stack: Stack, number: int | None) -> None:
        """Have HOST be the name of this one alone, or of none, where the stack looks for it."""
        for network in (f"{stack.project}_edge", f"{stack.project}_data-elsewhere"):
            names = "--format={{range .Containers}}{{.Name}} {{end}}"
            for one in docker("network", "inspect", network, names).split():
                if one.startswith(NAME):
                    docker("network", "disconnect", network, one)
            if number is not None:
                docker("network", "connect", f"--alias={HOST}", network, f"{NAME}-{number}")

    def _run(self, number: int, primary: str) -> None:
        docker(
            *("run", "--detach", f"--name={NAME}-{number}", f"--network={NAME}"),
            f"--publish={self.address}:{self.ports[number]}:5432",
            *(f"--volume={self.authority.file.parent}:/tls:ro", "--entrypoint=bash"),
            *("--env=POSTGRES_PASSWORD=unused", "--env=PGDATA=/var/lib/postgresql/data"),
            *(f"--env=PRIMARY={primary}", image("postgres"), "-c", START),
        )

    def _until_ready(self, number: int) -> None:
        ready = "pg_isready --quiet --host=127.0.0.1 && echo ready || true"
        poll(
            f"PostgreSQL {number}",
            lambda: docker("exec", f"{NAME}-{number}", "sh", "-c", ready),
            seconds=60,
        )

    def sql(self, number: int, query: str, database: str = "postgres") -> str:
        """Return what a query yields to the superuser of one of them."""
        psql = ("psql", "-qAtX", f"--dbname={database}", f"--command={query}")
        return docker("exec", "--user=postgres", f"{NAME}-{number}", *psql)

    def names(self, number: int) -> set[str]:
        """Return the names of all items in one of them."""
        return set(self.sql(number, "SELECT name FROM items", "shop").splitlines())

    def remove(self) -> None:
        """Leave nothing."""
        docker("rm", "--force", "--volumes", f"{NAME}-0", f"{NAME}-1")
        if docker("network", "ls", "--quiet", f"--filter=name=^{NAME}$"):
            docker("network", "rm", NAME)


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Elsewhere]:
    """Where every container of this machine reaches it, and no Docker network of the stack's."""
    gateway = "{{(index .IPAM.Config 0).Gateway}}"
    address = docker("network", "inspect", "bridge", f"--format={gateway}")
    authority = Authority(tmp_path_factory.mktemp("authority"))
    authority.certify(address, HOST)
    servers = Elsewhere(address, (free_port(), free_port()), authority)
    servers.remove()
    try:
        servers.start()
        yield servers
    finally:
        servers.remove()


@pytest.fixture(scope="module")
def stack(elsewhere: Elsewhere, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Two replicas of a copy, by a file as the documentation names it."""
    folder = copy_of_repository(tmp_path_factory.mktemp("elsewhere"))
    (folder / "secrets").mkdir()
    (folder / "secrets/DATABASE_URL").write_text(elsewhere.url())
    variables = {
        "DATABASE_URL_FILE": "./secrets/DATABASE_URL",
        "DATABASE_CA": str(elsewhere.authority.file),
    }
    with running("berth-test-elsewhere", scale=2, folder=folder, **variables) as stack:
        poll("https://localhost", stack.answers)
        yield stack


def come_back(stack: Stack) -> str:
    """Return when a client shall come back that is answered 503; a blank if it is not."""
    answer = stack.get("/items")
    return answer.headers["Retry-After"] if answer.status_code == 503 else ""


def services(stack: Stack) -> set[str]:
    """Return the services that have containers."""
    project = f"--filter=label=com.docker.compose.project={stack.project}"
    label = '{{.Label "com.docker.compose.service"}}'
    return set(docker("ps", "--all", f"--format={label}", project).split())


def test_app_is_served_from_there_and_nothing_of_a_database_runs_here(
    stack: Stack, elsewhere: Elsewhere
) -> None:
    """Each session is encrypted, and the password shows nowhere."""
    with stack.session() as session:
        made = session.post(stack.url("/items"), json={"name": "first"}, timeout=10)
    assert made.status_code == 201
    assert stack.get(f"/items/{made.json()['id']}").json()["name"] == "first"
    assert services(stack) == {"api", "docker-proxy", "migrate", "secrets", "traefik"}
    sessions = "SELECT bool_and(ssl) FROM pg_stat_activity JOIN pg_stat_ssl USING (pid)"
    assert elsewhere.sql(0, f"{sessions} WHERE usename = 'shop'") == "t"
    known = json.dumps([one for name in services(stack) for one in stack.containers(name)])
    processes = "".join(stack.compose("top", service) for service in ("api", "traefik"))
    for place in (known, processes, stack.compose("logs")):
        assert PASSWORD not in place
        assert "p%40ss" not in place


def test_commands_know_where_the_database_is(stack: Stack) -> None:
    """The doctor asks through a replica, psql gets in with verified TLS, advise does not fall."""
    found = stack.doctor()
    assert "TLS is verified" in found["database"]["says"]
    for check in ("database", "migrations", "queries", "backups", "services", "start", "settings"):
        assert found[check]["level"] == "good", found[check]
    asked = "SQL=SELECT session_user, ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"
    assert "shop         | t" in stack.run("make", "psql", asked).stdout
    failed = stack.run("make", "psql", "SQL=SELECT nothing", check=False)
    assert failed.returncode != 0
    assert 'column "nothing" does not exist' in failed.stderr
    assert docker("ps", "--quiet", f"--filter=name={stack.project}-psql") == ""
    assert "api uses" in stack.run("make", "advise", "SECONDS=1").stdout


@pytest.mark.parametrize(
    ("command", "says"),
    [
        ("backup", "its provider keeps backups"),
        ("verify-backup", "its provider keeps backups"),
        ("restore", "its provider keeps backups"),
        ("upgrade-db", "its provider upgrades it"),
        ("rotate-secrets", "give it a new password there, put that into the file, then `make up`"),
    ],
)
def test_what_belongs_to_the_database_says_whose_it_is(
    stack: Stack, command: str, says: str
) -> None:
    """One sentence."""
    done = stack.run("make", command, check=False)
    assert done.returncode != 0
    assert f"berth: the database is elsewhere (DATABASE_URL_FILE): {says}" in done.stderr


def test_what_does_not_let_us_in_changes_nothing(
    stack: Stack, elsewhere: Elsewhere, tmp_path: Path
) -> None:
    """A URL that is none, a wrong password, a wrong authority, a host that is not there."""
    file = tmp_path / "url"
    foreign = Authority(tmp_path / "foreign").file
    nobody = f"{elsewhere.address}:1"
    cases = [
        ("shop@nowhere", {}, f"DATABASE_URL_FILE={file}: the file must hold one line like"),
        (elsewhere.url(password="wrong"), {}, 'password authentication failed for user "shop"'),
        (elsewhere.url(), {"DATABASE_CA": str(foreign)}, "is not to be trusted: "),
        (elsewhere.url(hosts=nobody), {}, f"No connection to the database at {nobody} in 15 s"),
        (
            elsewhere.url(),
            {"BACKUP_DIR": str(tmp_path)},
            "BACKUP_DIR and DATABASE_URL_FILE are both set",
        ),
    ]
    before = stack.healthy()
    for url, variables, says in cases:
        file.write_text(url)
        given = {"DATABASE_URL_FILE": str(file)} | variables
        settings = [f"{name}={value}" for name, value in given.items()]
        done = stack.run("make", "up", *settings, check=False)
        assert done.returncode != 0
        (sentence,) = (one for one in done.stderr.splitlines() if not one.startswith("make: "))
        assert sentence.startswith("berth: ")
        assert says in sentence
        assert "p%40ss" not in sentence
    assert stack.healthy() == before
    # Nor do replicas that start anew find other files.
    stack.compose("restart", "api")
    poll("well again", stack.answers)


def test_deploy_migrates_there_and_loses_no_request(stack: Stack, elsewhere: Elsewhere) -> None:
    """By the app's own role, to which it leaves no setting."""
    (stack.folder / "migrations/versions/0002_more.py").write_text(
        "from alembic import op\n"
        "revision, down_revision = '0002', '0001'\n"
        "def upgrade() -> None:\n"
        "    op.execute('ALTER TABLE items ADD COLUMN more int')\n"
    )
    with writing(stack, "deployed") as writer:
        done = stack.run("make", "deploy")
        writer.await_more()
    assert "1 migration (0002)" in done.stdout + done.stderr
    assert writer.refused == []
    assert elsewhere.sql(0, "SELECT version_num FROM alembic_version", "shop") == "0002"
    assert elsewhere.sql(0, "SELECT count(*) FROM pg_db_role_setting") == "0"


def test_restart_there_is_a_moment_of_503(stack: Stack, elsewhere: Elsewhere) -> None:
    """With Retry-After; then all is well by itself, and nothing acknowledged is lost."""
    before = stack.healthy()
    with writing(stack, "restarted") as writer:
        docker("stop", f"{NAME}-0")
        assert poll("503", lambda: come_back(stack)) == "1"
        docker("start", f"{NAME}-0")
        writer.await_more()
    assert set(writer.refused) <= {503}
    assert set(writer.acknowledged) <= elsewhere.names(0)
    assert stack.healthy() == before


def test_failover_to_another_address_is_a_moment_of_503(stack: Stack, elsewhere: Elsewhere) -> None:
    """The primary is killed and its standby takes over; the URL names both."""
    before = stack.healthy()
    with writing(stack, "failed-over") as writer:
        docker("kill", f"{NAME}-0")
        killed = time.monotonic()
        assert poll("503", lambda: come_back(stack)) == "1"
        assert "elsewhere: the database does not answer" in stack.doctor()["database"]["says"]
        elsewhere.promote(1)
        writer.await_more()
    well = min(at for at in writer.acknowledged.values() if at > killed + 0.5)
    print(f"{len(writer.refused)} writes refused in {well - killed:.1f} s")
    assert set(writer.refused) <= {503}
    assert set(writer.acknowledged) <= elsewhere.names(1)
    assert stack.healthy() == before
    assert stack.doctor()["database"]["level"] == "good"


def test_failover_of_a_name_to_another_address_is_a_moment_of_503(
    stack: Stack, elsewhere: Elsewhere
) -> None:
    """The URL has one name, which leads elsewhere afterwards; metrics know of the outage."""
    elsewhere.add_standby(0, of=1)
    elsewhere.lead(stack, 1)
    try:
        (stack.folder / "secrets/DATABASE_URL").write_text(elsewhere.url(hosts=HOST))
        stack.run("make", "up")
        stack.compose("--profile=metrics", "up", "--detach", "--no-deps", "postgres-exporter")
        poll("metrics", lambda: metrics(stack)["pg_up"] == 1)
        assert metrics(stack)['pg_stat_database_numbackends{datname="shop"}'] > 0
        assert metrics(stack)["pg_settings_max_connections"] == 100
        with writing(stack, "renamed") as writer:
            docker("kill", f"{NAME}-1")
            killed = time.monotonic()
            assert poll("503", lambda: come_back(stack)) == "1"
            assert metrics(stack) == {"pg_up": 0}
            elsewhere.promote(0)
            elsewhere.lead(stack, 0)
            moved = time.monotonic()
            writer.await_more()
        well = min(at for at in writer.acknowledged.values() if at > moved)
        print(f"{len(writer.refused)} writes refused in {well - killed:.1f} s")
        print(f"well {well - moved:.1f} s after the name led there")
        assert set(writer.refused) <= {503}
        assert set(writer.acknowledged) <= elsewhere.names(0)
        assert metrics(stack)["pg_up"] == 1
        assert stack.doctor()["database"]["level"] == "good"
    finally:
        elsewhere.lead(stack, None)


def metrics(stack: Stack) -> dict[str, float]:
    """Return what Prometheus would be told of the database."""
    ask = "from urllib.request import urlopen as get; "
    ask += "print(get('http://localhost:9187').read().decode())"
    command = ("exec", "--no-TTY", "postgres-exporter", "python", "-c", ask)
    done = stack.run("docker", "compose", "--profile=metrics", *command, check=False)
    lines = [one for one in done.stdout.splitlines() if one.startswith("pg_")]
    pairs = (one.rpartition(" ")[::2] for one in lines)
    return {"pg_up": -1} | {name: float(value) for name, value in pairs}


def test_a_database_that_was_here_moves_there(stack: Stack, elsewhere: Elsewhere) -> None:
    """By the steps of the documentation; and before that, one elsewhere is left for one here."""
    here = ("env", "DATABASE_URL_FILE=", "DATABASE_CA=")
    stack.run(*here, "make", "up")
    assert stack.get("/items").json()["items"] == []
    with stack.session() as session:
        made = session.post(stack.url("/items"), json={"name": "moved"}, timeout=10)
    stack.run(*here, "make", "maintenance", "ON=1")
    assert stack.get("/items").status_code == 503
    dump = ("pg_dump", "--dbname=berth", "--no-owner", "--no-privileges")
    stack.run(*here, "sh", "-c", f"docker compose exec -T db {' '.join(dump)} > shop.sql")
    elsewhere.sql(0, "CREATE DATABASE moved OWNER shop")
    (stack.folder / "secrets/DATABASE_URL").write_text(elsewhere.url(name="moved"))
    stack.run("sh", "-c", "make psql < shop.sql")
    stack.run("make", "up")
    stack.run("make", "maintenance", "OFF=1")
    assert stack.get(f"/items/{made.json()['id']}").json()["name"] == "moved"
    assert elsewhere.sql(0, "SELECT name FROM items", "moved") == "moved"
    assert "db" not in {one for one in services(stack) if stack.containers(one)}
