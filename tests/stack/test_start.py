"""One command starts everything in order, and what runs comes back by itself."""

import re
import shutil
import time
from collections import Counter
from datetime import datetime
from pathlib import Path

from tests.stack.stack import REPOSITORY, Stack, copy_of_repository, poll, running

QUICK_SECONDS = 30


def test_four_replicas_share_the_work(stack: Stack) -> None:
    """Each of four answers a quarter of the requests, within a fifth."""
    with stack.session() as session:
        answers = Counter(
            session.get(stack.url("/version"), timeout=10).json()["replica"] for _ in range(400)
        )
    assert len(answers) == 4
    assert all(80 <= count <= 120 for count in answers.values()), answers


def test_migrations_end_well_before_any_replica_starts(stack: Stack) -> None:
    """By the engine's own clock."""
    (migrate,) = stack.containers("migrate", everything=True)
    assert migrate["State"]["ExitCode"] == 0
    ended = datetime.fromisoformat(migrate["State"]["FinishedAt"])
    started = [
        datetime.fromisoformat(replica["State"]["StartedAt"]) for replica in stack.containers("api")
    ]
    assert len(started) == 4
    assert all(ended <= start for start in started)


def test_starting_again_changes_nothing_and_is_quick(stack: Stack) -> None:
    """The same containers run on; the one-shots find nothing to do."""
    services = ("traefik", "api", "db", "docker-proxy")
    before = {service: stack.containers(service) for service in services}
    start = time.monotonic()
    stack.compose("up", "--detach", "--scale=api=4")
    assert time.monotonic() - start < QUICK_SECONDS
    for service in services:
        assert [(c["Id"], c["State"]["StartedAt"]) for c in stack.containers(service)] == [
            (c["Id"], c["State"]["StartedAt"]) for c in before[service]
        ]
    assert "fine" in stack.logs("migrate").splitlines()[-1]


def test_replicas_are_found_though_docker_is_slow_to_tell(tmp_path: Path) -> None:
    """All turn healthy after Traefik has looked, and before it hears of anything new.

    The checkout was made under umask 077, so nobody but its owner may read its files.
    """
    folder = copy_of_repository(tmp_path)
    for path in [folder, *folder.rglob("*")]:
        path.chmod(path.stat().st_mode & ~0o077)
    settings = folder / "traefik/docker-proxy.cfg"
    before, backend, after = settings.read_text().partition("default_backend docker\n")
    assert backend
    late = "http-request pause 8s if { path_end /events }\n    "
    settings.write_text(before + late + backend + after)
    with running("berth-test-slow-events", scale=2, folder=folder) as stack:
        poll("an answer", stack.answers)


def test_new_project_starts_as_its_maker_is_told(tmp_path: Path) -> None:
    """By `make new`, the line in .env that it names, and `make up`; there is nothing to edit."""
    folder = copy_of_repository(tmp_path)
    shutil.copytree(REPOSITORY / "tests/app", folder / "tests/app")
    (folder / "tests/__init__.py").touch()
    stack = Stack("berth-test-new", {"COMPOSE_DISABLE_ENV_FILE": "0"}, folder)
    stack.down()
    try:
        said = stack.run("make", "new", "DIR=../shop").stderr
        line = re.search(r"put (\S+) into \.env, then `make up`", said)
        assert line, said
        (folder / ".env").write_text(f"{line[1]}\n")
        assert stack.run("make", "up").stdout.endswith(" s in all\n")
        with stack.session() as session:
            made = session.post(stack.url("/items"), json={"name": "anchor"}, timeout=10)
            assert made.status_code == 201
            path = stack.url(f"/items/{made.json()['id']}")
            assert session.get(path, timeout=10).json() == made.json()
        assert stack.get("/openapi.json").json()["info"]["title"] == "shop"
    finally:
        stack.down()


def test_failing_migration_leaves_no_replica_running(tmp_path: Path) -> None:
    """Its error is where one looks for it, and what it had begun is undone."""
    folder = copy_of_repository(tmp_path)
    (folder / "migrations/versions/0002_broken.py").write_text(
        "from alembic import op\n"
        "revision, down_revision = '0002', '0001'\n"
        "def upgrade() -> None:\n"
        "    op.execute('CREATE TABLE half_done (id int)')\n"
        "    op.execute('ALTER TABLE nowhere ADD COLUMN x int')\n"
    )
    stack = Stack("berth-test-migration", {}, folder)
    stack.down()
    try:
        done = stack.run("docker", "compose", "up", "--detach", "--scale=api=2", check=False)
        assert done.returncode != 0
        assert stack.containers("api") == []
        assert 'relation "nowhere" does not exist' in stack.logs("migrate")
        tables = stack.compose(
            "exec", "db", "psql", "--dbname=berth", "--tuples-only", "--command=\\dt"
        )
        assert "half_done" not in tables
    finally:
        stack.down()
