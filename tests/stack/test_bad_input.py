"""What cannot work is refused in one sentence, and nothing is left half-started."""

import os
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.stack.stack import Stack, copy_of_repository, docker, image, poll

AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")

# As SQLModel's tutorial does it when the app starts; here the app's role may not.
MAKES_TABLES = """
@asynccontextmanager
async def make_tables(_app):
    connection = await asyncpg.connect()
    await connection.execute("CREATE TABLE heroes (name text)")
    yield


app.router.lifespan_context = make_tables
"""


@pytest.fixture
def stack(folder: Path) -> Iterator[Stack]:
    """A copy of the repository with nothing running."""
    stack = Stack("berth-test-input", {}, folder)
    stack.down()
    yield stack
    stack.down()


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """A copy of the repository that everybody may read."""
    with tempfile.TemporaryDirectory() as scratch:
        Path(scratch).chmod(0o755)
        yield copy_of_repository(Path(scratch))


def refusal(stack: Stack, *command: str) -> str:
    """Return the one sentence with which a command is refused."""
    done = stack.run(*command, check=False)
    assert done.returncode != 0
    (sentence,) = (line for line in done.stderr.splitlines() if not line.startswith("make: "))
    assert sentence.startswith("berth: ")
    assert running(stack) == []
    return sentence.removeprefix("berth: ")


def running(stack: Stack) -> list[str]:
    """Return the names of the project's containers that run."""
    project = f"--filter=label=com.docker.compose.project={stack.project}"
    return docker("ps", "--format={{.Names}}", project).split()


@pytest.mark.parametrize(
    ("variable", "value", "says"),
    [
        ("DOMAIN", "https://example.org", "give the bare host name, such as example.org"),
        ("DOMAIN", "example.org/shop", "give the bare host name, such as example.org"),
        # Of a letter in the image's own locale, en_US.utf8, but of no name in DNS.
        ("DOMAIN", "exämple.org", "give the bare host name, such as example.org"),
        ("DOMAINS", "example.net", "give the first name as DOMAIN"),
        ("DOMAIN", "*.example.org", "give a single name, such as example.org"),
        ("ACME_DNS_PROVIDER", "cloudfare", "no provider of this name is known"),
        (
            "ACME_DNS_PROVIDER",
            "cloudflare",
            "put what it gave you into keys/dns, each value",
        ),
        ("TRUSTED_PROXIES", "cloudfare", "cloudfare is neither an address, nor a network"),
        ("ACME_CA_SERVER", "acme.example.org", "give the URL of the CA's ACME directory"),
        ("ACME_CA_CERTIFICATE", "/nowhere/ca.pem", "there is no such file"),
        ("BIND_ADDRESS", "192.0.2.1", "this machine has no such address"),
        ("APP_DIR", "/nowhere/shop", "there is no such folder"),
        ("APP_ENV", "/nowhere/app.env", "there is no such file"),
        ("APP_SECRETS", "/nowhere/secrets", "there is no such folder"),
        ("DATABASE_URL_FILE", "/nowhere/url", "there is no such file"),
        ("DATABASE_CA", "/nowhere/ca.pem", "there is no such file"),
    ],
)
def test_setting_that_cannot_work_is_refused_by_its_name(
    stack: Stack, variable: str, value: str, says: str
) -> None:
    """The sentence says what was given, and what to give."""
    assert refusal(stack, "make", "up", f"{variable}={value}").startswith(
        f"{variable}={value}: {says}"
    )


JUDGED = """
while read -r DOMAINS REDIRECT_DOMAINS TRUSTED_PROXIES; do
    export DOMAINS=${DOMAINS#-} REDIRECT_DOMAINS=${REDIRECT_DOMAINS#-}
    export TRUSTED_PROXIES=${TRUSTED_PROXIES#-}
    # Whatever it accepts, it goes on to volumes that are not here.
    bash /create-secrets.sh 2> /dev/null || true
    echo .
done
"""


def test_names_and_proxies_are_judged(stack: Stack) -> None:
    """What Traefik could not use, and what would have it believe everybody."""
    good = [
        "b.test,c-d.test e.test 192.0.2.1",
        "- - cloudflare,192.0.2.0/24,2001:db8::/32",
        "- - ::1,2001:db8::1:2,1:2:3:4:5:6:7:8/64,fe80::/10,10.0.0.0/8",
    ]
    bad = [
        ("*.b.test - -", "DOMAINS=*.b.test: for a wildcard, authorities want a record in the DNS"),
        ("b.*.test - -", "DOMAINS=b.*.test: give bare host names with commas"),
        ("b.test,,c.test - -", "DOMAINS=b.test,,c.test: give bare host names with commas"),
        ("https://b.test - -", "DOMAINS=https://b.test: give bare host names with commas"),
        ("b.test B.test -", "REDIRECT_DOMAINS=B.test: B.test is given twice"),
        ("a.test - -", "DOMAINS=a.test: a.test is given twice"),
        ("a.localhost - -", "DOMAINS=a.localhost: no authority signs for a.localhost"),
        *(
            (f"- - {value}", f"TRUSTED_PROXIES={value}: ")
            for value in (
                *("0.0.0.0/0", "::/0", "*", "192.0.2.1,", "192.0.2.256", "192.0.2", "192.0.2.01"),
                *("192.0.2.0/33", "2001:db8::1::2", "2001:db8", ":::", "2001:db8::/129", "12345::"),
                *("1:2:3:4:5:6:7:8:9", "1:2:3:4:5:6:7:8::", "example.org", "Cloudflare"),
            )
        ),
    ]
    done = subprocess.run(
        [
            *("docker", "run", "--rm", "--interactive", "--network=none", "--user=65534"),
            f"--volume={stack.folder}/db/create-secrets.sh:/create-secrets.sh:ro",
            *("--env=DOMAIN=a.test", "--env=ACME_CA_SERVER=", "--env=COPIES_BACKUPS="),
            "--env=ACME_DNS_PROVIDER=",
            *("--env=BACKUP_DIR=", "--env=STATUS=", "--env=PROFILES=", "--env=ALERTS="),
            "--env=DATABASE_URL_FILE=",
            *("--entrypoint=bash", image("postgres"), "-c", JUDGED),
        ],
        input="".join(f"{line}\n" for line in [*good, *(line for line, _ in bad)]),
        capture_output=True,
        text=True,
        check=True,
    )
    answers = [one.strip() for one in done.stdout.split(".\n")][:-1]
    assert answers[: len(good)] == [""] * len(good)
    for answer, (line, says) in zip(answers[len(good) :], bad, strict=True):
        assert answer.startswith(says), line


def test_number_that_is_none_is_refused(stack: Stack) -> None:
    """In Compose's own words, which name the place in compose.yaml."""
    sentence = refusal(stack, "make", "up", "API_REPLICAS=abc")
    assert "services.api.deploy.replicas" in sentence
    assert '"abc"' in sentence


@pytest.mark.parametrize("variable", ["HTTP_PORT", "HTTPS_PORT"])
def test_port_that_is_taken_is_refused(stack: Stack, variable: str) -> None:
    """With the name of the program that has it."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        sentence = refusal(stack, "make", "up", f"{variable}={port}")
    assert sentence.startswith(f"{variable}={port}: py")
    assert f"(process {os.getpid()}) has this port" in sentence


@AS_ROOT
def test_user_who_may_not_use_docker_is_told_how_to(stack: Stack) -> None:
    """Whichever program they try."""
    nobody = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
    os.chown(stack.folder, 65534, 65534)
    variables = ("env", "HOME=/nonexistent", "PATH=/usr/local/bin:/usr/bin:/bin")
    for target in ("up", "deploy", "rollback", "doctor"):
        done = stack.run(*nobody, *variables, "make", target, check=False)
        assert done.returncode != 0
        assert "Docker runs, but you may not use it: `sudo usermod" in done.stdout + done.stderr


@AS_ROOT
def test_disk_that_is_nearly_full_is_refused(stack: Stack) -> None:
    """The figures are of the disk that Docker keeps its data on."""
    data = docker("info", "--format={{.DockerRootDir}}")
    # In a mount namespace of its own, where that folder is a small disk; the engine sees nothing.
    small = 'mount -t tmpfs -o size=100m tmpfs "$0" && exec make up'
    sentence = refusal(stack, "unshare", "--mount", "sh", "-c", small, data)
    assert sentence.startswith(f"the disk of {data} has 0.1 GB free and a start needs 1.1")


def test_scale_that_does_not_fit_the_memory_is_refused_with_the_arithmetic(stack: Stack) -> None:
    """A terabyte of replicas, before the first one starts; and how many would fit."""
    sentence = refusal(stack, "make", "up", "API_REPLICAS=1024", "API_MEMORY=1g")
    assert sentence.startswith(
        "1024 replicas do not fit this machine's memory: 1024 times 1,024 MiB"
    )
    assert "The most that fits is " in sentence


@pytest.mark.parametrize(
    ("variable", "value"),
    [("DOMAIN", "https://example.org"), ("ACME_CA_SERVER", "acme.example.org")],
)
def test_compose_alone_refuses_it_too(stack: Stack, variable: str, value: str) -> None:
    """The first service to run judges the settings, and says in its log what is wrong."""
    done = stack.run("env", f"{variable}={value}", "docker", "compose", "up", "-d", check=False)
    assert done.returncode != 0
    assert 'service "secrets" didn\'t complete successfully' in done.stderr
    assert stack.logs("secrets").startswith(f"{variable}={value}: give ")
    assert running(stack) == []


def test_first_start_that_fails_can_be_repaired(stack: Stack) -> None:
    """Nothing runs after it; the next `make up` builds what has been changed meanwhile."""
    broken = stack.folder / "migrations/versions/0002_broken.py"
    broken.write_text(
        "from alembic import op\n"
        "revision, down_revision = '0002', '0001'\n"
        "def upgrade() -> None:\n"
        "    op.execute('ALTER TABLE nowhere ADD COLUMN x int')\n"
    )
    try:
        done = stack.run("make", "up", check=False)
    finally:
        broken.unlink()
    assert done.returncode != 0
    assert "migrate failed with exit code 1" in done.stderr
    assert 'relation "nowhere" does not exist' in done.stderr
    assert running(stack) == []
    stack.run("make", "up")
    poll("https://localhost", stack.answers)


def test_code_that_cannot_be_imported_is_said_once_and_starts_no_replica(stack: Stack) -> None:
    """By Compose alone too; the database is not migrated for it."""
    main = stack.folder / "app/main.py"
    good = main.read_text()
    main.write_text("import nowhere\n")
    try:
        done = stack.run("make", "up", check=False)
        alone = stack.run("docker", "compose", "up", "--detach", "--build", check=False)
    finally:
        main.write_text(good)
    assert done.returncode != 0
    assert done.stderr.count("the app cannot be imported: ModuleNotFoundError: No module") == 1
    assert done.stderr.count("Traceback") == 1
    assert alone.returncode != 0
    assert 'service "migrate" didn\'t complete successfully' in alone.stderr
    assert stack.containers("api") == []
    tables = "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'"
    psql = ("psql", "--dbname=berth", "-At", f"--command={tables}")
    assert stack.compose("exec", "-T", "db", *psql).strip() == "0"


def test_code_that_crashes_is_built_again_once_it_is_mended(stack: Stack) -> None:
    """Though Compose has started it; until then, its own last words say what is wrong."""
    main = stack.folder / "app/main.py"
    good = main.read_text()
    # Not while it is imported, which `migrate` would have noticed.
    main.write_text(f"{good}\n{MAKES_TABLES}")
    try:
        stack.run("docker", "compose", "up", "--detach", "--build")
        deployed = stack.run("make", "deploy", "DEPLOY_SECONDS=5", check=False)
        done = stack.run("make", "up", check=False)
    finally:
        main.write_text(good)
    assert "is healthy: see `make doctor`" in deployed.stderr
    assert "goes on serving" not in deployed.stderr
    assert done.returncode != 0
    assert done.stderr.count("permission denied for schema public: the app reads and writes") == 1
    assert done.stderr.count("\n") < 25
    stack.run("make", "up")
    assert stack.answers()


def test_service_that_crashes_again_and_again_fails_the_start(stack: Stack) -> None:
    """Though it has no health check, so that Compose takes it for started."""
    crashing = stack.folder / "crashing.yaml"
    image = docker("compose", "config", "--images", "db").split()[0]
    crashing.write_text(
        f"services:\n  crashing:\n    image: {image}\n    restart: unless-stopped\n"
        "    entrypoint: [sh, -c, 'sleep 1; echo nobody to write to; exit 3']\n"
        "    tmpfs: [/var/lib/postgresql]\n"
    )
    stack.environment["COMPOSE_FILE"] = f"compose.yaml:{crashing.name}"
    for start in ("the first", "one that finds everything running"):
        done = stack.run("python3", "-m", "ops.up", check=False)
        assert done.returncode != 0, start
        assert "crashing-1 crashed " in done.stderr
        assert "nobody to write to" in done.stderr
    assert stack.answers()
