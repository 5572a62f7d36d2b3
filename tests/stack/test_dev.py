"""Development: what is saved is what runs."""

import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests

from tests.ports import free_port
from tests.stack.person import Person, sitting_at
from tests.stack.stack import Stack, copy_of_repository, poll

# What curl ends with then.
NOT_TRUSTED = 60
WORKER = """
services:
  worker:
    extends: {file: app.yaml, service: worker}
    command: sh -c "cat app/main.py; exec sleep infinity"
"""


@contextmanager
def developing(stack: Stack, log: Path) -> Iterator[None]:
    """Have `make dev` run, until Ctrl-C."""
    with log.open("w") as output:
        watching = subprocess.Popen(
            ["python3", "-m", "ops.dev"],
            cwd=stack.folder,
            env={**os.environ, **stack.environment},
            stdout=output,
            stderr=output,
        )
        try:
            yield
        finally:
            watching.send_signal(signal.SIGINT)
            try:
                watching.wait(30)
            finally:
                watching.kill()


@pytest.fixture(scope="module")
def configured(tmp_path_factory: pytest.TempPathFactory) -> Stack:
    """A copy of the repository and a worker, with nothing running yet."""
    folder = copy_of_repository(tmp_path_factory.mktemp("dev"))
    (folder / "compose.override.yaml").write_text(WORKER)
    stack = Stack(
        "berth-test-dev",
        {
            "COMPOSE_PROFILES": "metrics",
            "DOMAIN": "shop.localhost",
            "DOMAINS": "localhost",
            "DB_PORT": str(free_port()),
        },
        folder,
    )
    files = stack.run("python3", "-m", "ops.dev", "files").stdout.strip()
    stack.environment["COMPOSE_FILE"] = files
    return stack


@pytest.fixture(scope="module")
def person(configured: Stack) -> Iterator[Person]:
    """Somebody who has had their machine trust the stack."""
    with sitting_at(configured) as person:
        profile = "/root/.mozilla/firefox/one"
        person.run("mkdir", "--parents", profile)
        person.run("certutil", "-N", "-d", f"sql:{profile}", "--empty-password")
        person.run("make", "trust")
        yield person


@pytest.fixture(scope="module")
def dev(configured: Stack, person: Person) -> Iterator[Stack]:
    """The stack, started as `make dev` starts it; clients trust what that machine trusts."""
    stack = configured
    stack.root = person.authority
    stack.down()
    stack.run("python3", "-m", "host")
    try:
        with developing(stack, stack.folder.parent / "dev.log"):
            poll("https://localhost", stack.answers, seconds=60)
            yield stack
    finally:
        stack.down()


def test_saved_code_shows_soon(dev: Stack) -> None:
    """The server starts anew in the same container."""
    main = dev.folder / "app/main.py"
    before = dev.containers("api")[0]["Id"]
    path = "/openapi.json"
    assert "Saved" not in dev.get(path).text
    main.write_text(main.read_text().replace('title="Berth"', 'title="Saved"'))
    poll("the change", lambda: dev.answers(path) and "Saved" in dev.get(path).text)
    assert dev.containers("api")[0]["Id"] == before


def test_worker_of_the_users_own_starts_anew_with_saved_code(dev: Stack) -> None:
    """It stands in compose.override.yaml, and has the same folder mounted."""
    (worker,) = poll("the worker", lambda: dev.containers("worker"))
    with (dev.folder / "app/main.py").open("a") as file:
        file.write("# saved for the worker\n")
    poll("the change", lambda: "saved for the worker" in dev.logs("worker"))
    assert [one["Id"] for one in dev.containers("worker")] == [worker["Id"]]


def test_files_of_the_users_own_stay_beside_that_of_development(dev: Stack) -> None:
    """Whether COMPOSE_FILE names them, in .env or not, or Compose finds them by their name."""
    command = ("python3", "-m", "ops.dev", "files")
    variables = ("env", "--unset=COMPOSE_FILE", "--unset=COMPOSE_DISABLE_ENV_FILE")
    found = "compose.yaml:compose.override.yaml:compose.dev.yaml\n"
    assert dev.run(*variables, *command).stdout == found
    (dev.folder / ".env").write_text("COMPOSE_FILE=compose.yaml:compose.faults.yaml")
    try:
        named = "compose.yaml:compose.faults.yaml:compose.dev.yaml\n"
        assert dev.run(*variables, *command).stdout == named
    finally:
        (dev.folder / ".env").unlink()


def test_changed_requirement_rebuilds(dev: Stack) -> None:
    """The watch builds the image again and replaces the container."""
    before = dev.containers("api")[0]
    requirements = dev.folder / "requirements.txt"
    requirements.write_text(requirements.read_text() + "# changed\n")
    poll(
        "a container of a new image",
        lambda: [c for c in dev.containers("api") if c["Image"] != before["Image"]],
        seconds=60,
    )
    poll("https://localhost", dev.answers, seconds=60)


def test_database_has_a_port_on_loopback(dev: Stack) -> None:
    """For a client on this machine, and for nobody else."""
    port = int(dev.environment["DB_PORT"])
    with socket.create_connection(("127.0.0.1", port), timeout=5):
        pass
    (db,) = dev.containers("db")
    (published,) = db["NetworkSettings"]["Ports"]["5432/tcp"]
    assert published["HostIp"] == "127.0.0.1"


def test_debug_messages_are_shown(dev: Stack) -> None:
    """Without having set LOG_LEVEL."""
    assert "DBG" in dev.logs("traefik")


def test_status_page_is_on(dev: Stack) -> None:
    """Without having set STATUS, and behind a login all the same."""
    assert dev.get("/status/").status_code == requests.codes.unauthorized
    with dev.session() as session:
        session.auth = ("berth", dev.run("make", "--silent", "status").stdout.split()[-1])
        address = dev.url("/status/api/v1/query?query=app_info")
        poll(
            "metrics of the app", lambda: session.get(address, timeout=10).json()["data"]["result"]
        )


def test_next_migration_is_written_from_the_models(dev: Stack) -> None:
    """`make revision` puts it beside the others, as the user's own file."""
    models = dev.folder / "app/items/models.py"
    models.write_text(
        models.read_text() + "\nprices = Table('prices', metadata, Column('amount', Integer))\n"
    )
    dev.run("make", "revision", "MESSAGE=add prices")
    (written,) = (dev.folder / "migrations/versions").glob("*_add_prices.py")
    assert "create_table('prices'" in written.read_text()
    assert written.stat().st_uid == os.geteuid()
    dev.compose("run", "--rm", "--no-TTY", "migrate")
    applied = ("psql", "--dbname=berth", "-At", "--command=SELECT version_num FROM alembic_version")
    revision = written.name.partition("_")[0]
    assert dev.compose("exec", "-T", "db", *applied).strip() == revision


def test_curl_and_browsers_trust_localhost_until_they_do_not(dev: Stack, person: Person) -> None:
    """By the machine's store and the browser's own, and names below localhost as well."""
    again = person.run("make", "trust").stdout
    assert again.splitlines() == [
        f"the certificate in {dev.folder}/localhost is good",
        "this machine trusts it already",
        "~/.pki/nssdb trusts it already",
        "~/.mozilla/firefox/one trusts it already",
        "browsers that are open see it when they start anew",
    ]
    urls = [f"https://{name}:{dev.https_port}/readyz" for name in ("localhost", "shop.localhost")]
    for url in urls:
        assert person.run("curl", "--silent", "--show-error", url).stdout == '{"status":"ok"}'
        assert '{"status":"ok"}' in person.browse(url)
    person.run("make", "untrust")
    for url in urls:
        assert person.run("curl", "--silent", url, check=False).returncode == NOT_TRUSTED
        assert "status" not in person.browse(url)
    assert person.run("make", "untrust").stdout.splitlines() == [
        "this machine has none",
        "~/.pki/nssdb has none",
        "~/.mozilla/firefox/one has none",
    ]
