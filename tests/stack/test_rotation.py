"""Passwords change under an app that keeps the DATABASE_URL of its start, at no request's cost."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
import requests

from host.commands import UserError
from ops.images import from_inspect
from ops.rotate_secrets import check_berth
from tests.stack.stack import HERE, REPOSITORY, Stack, configuration, docker, poll, running
from tests.stack.stack import image as image_of
from tests.stack.test_security_secrets import logs_in, owners, read

APP = """
import os
from contextlib import asynccontextmanager

import asyncpg
from fastapi import FastAPI

URL = os.environ["DATABASE_URL"]


@asynccontextmanager
async def lifespan(app):
    async with asyncpg.create_pool(URL, min_size=1, max_size=4) as app.state.pool:
        yield


app = FastAPI(lifespan=lifespan)


@app.post("/")
async def user() -> str:
    return await app.state.pool.fetchval("SELECT current_user::text")
"""
# New connections, one after the other, as replicas log in that start at this moment.
LOG_IN = """
import asyncio, time
from _berth.postgres import log_in
from _berth.settings import load_settings
async def main():
    count, end = 0, time.monotonic() + 15
    while time.monotonic() < end:
        await (await log_in(load_settings())).close()
        count += 1
    print(count)
asyncio.run(main())
"""
ROTATE = (sys.executable, "-m", "ops.rotate_secrets")
# The steps of ops/rotate_secrets.py.
STEPS = ("prepare", "roles", "switch", "retire", "roles")


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Two replicas of an app that opens its pool at the start."""
    folder = tmp_path_factory.mktemp("keeps")
    (folder / "main.py").write_text(APP)
    shutil.copy(REPOSITORY / "requirements.txt", folder)
    with running("berth-test-rotation", scale=2, APP_DIR=str(folder), SURGE="2") as stack:
        poll("the first answer", stack.answers)
        yield stack


@contextmanager
def asking(stack: Stack) -> Iterator[list[int | str]]:
    """POST all the while, which nobody repeats; yields what was answered so far."""
    ended = threading.Event()
    answers: list[int | str] = []

    def client() -> None:
        with stack.session() as session:
            while not ended.wait(0.02):
                try:
                    answer = session.post(stack.url("/"), timeout=10)
                    well = answer.ok and answer.json() == "berth"
                    answers.append("berth" if well else answer.status_code)
                except requests.RequestException as error:
                    answers.append(repr(error))

    with ThreadPoolExecutor(4) as clients:
        asked = [clients.submit(client) for _ in range(4)]
        try:
            poll("answers", lambda: len(answers) > 50)
            yield answers
            count = len(answers)
            poll("more answers", lambda: len(answers) > count + 50)
        finally:
            ended.set()
    assert [one.result() for one in asked] == [None] * 4


def login(stack: Stack) -> tuple[str, str]:
    """Return the name and the password that a replica starts with now."""
    link = ("readlink", "/run/secrets/database-password")
    user = stack.compose("exec", "-T", "db", *link).strip()
    return user, read(stack, user)


def test_two_rotations_and_a_restart_of_the_database(stack: Stack) -> None:
    """Nothing is refused but what the restart refuses; old passwords open nothing, at once."""
    logins, old_owner = [login(stack)], owners(stack)
    with asking(stack) as answers, ThreadPoolExecutor(1) as connecting:
        fresh = ("run", "--rm", "--no-deps", "-T", "api", "python", "-c", LOG_IN)
        log_ins = connecting.submit(stack.compose, *fresh)
        for _ in range(2):
            said = stack.run("make", "rotate-secrets").stdout
            logins.append(login(stack))
            assert logins[-1][1] not in said
            open_ones = stack.compose(
                *("exec", "-T", "db", "psql", "-At", "--command"),
                "SELECT DISTINCT usename FROM pg_stat_activity WHERE application_name = ''"
                " AND datname = 'berth' AND usename LIKE 'berth%'",
            )
            assert open_ones.split() == [logins[-1][0]]
        assert int(log_ins.result().split()[-1]) > 50
        assert set(answers) == {"berth"}
        stack.compose("restart", "db")
        poll("the database", lambda: answers[-20:] == ["berth"] * 20)
    assert set(answers) <= {"berth", requests.codes.unavailable}
    assert [user for user, _ in logins] == ["berth", "berth_clone", "berth"]
    assert [logs_in(stack, *one) for one in logins] == [False, False, True]
    assert logs_in(stack, "berth_owner", owners(stack))
    assert not logs_in(stack, "berth_owner", old_owner)
    assert logins[-1][1] not in stack.compose("logs")


def test_a_rotation_that_is_killed_leaves_a_whole_service(stack: Stack) -> None:
    """Old replicas and new ones get in; the next run finishes it, with as many as there were."""
    old = login(stack)
    with asking(stack) as answers:
        variables = os.environ | stack.environment | {"SURGE": "1"}
        process = subprocess.Popen(
            ROTATE, cwd=stack.folder, env=variables, stdout=subprocess.DEVNULL
        )
        poll("a new replica", lambda: len(stack.containers("api")) == 3)
        process.send_signal(signal.SIGKILL)
        process.wait()
        half = login(stack)
        assert half[0] != old[0]
        assert logs_in(stack, *old)
        assert logs_in(stack, *half)
        poll("its health", lambda: len(stack.healthy()) == 3)
        assert "valid still" in stack.doctor()["database"]["says"]
        assert set(answers) == {"berth"}
        stack.compose("restart", "db")
        stack.compose("restart", "api")
        poll("replicas", lambda: len(stack.healthy()) == 3)
        poll("answers", lambda: answers[-20:] == ["berth"] * 20)
        count = len(answers)
        assert "broken off is finished" in stack.run(*ROTATE).stdout
        assert set(answers[count:]) == {"berth"}
    assert len(stack.containers("api")) == 2
    assert login(stack) == half
    assert logs_in(stack, *half)
    assert not logs_in(stack, *old)


def test_an_image_that_knows_one_name_is_told_of_first() -> None:
    """Its replicas could not log in by the other."""
    (found,) = json.loads(docker("image", "inspect", image_of("python")))
    with pytest.raises(UserError, match="built by an older Berth"):
        check_berth(from_inspect(found, "berth-api"))


class Server:
    """A database that asks for passwords, and what `secrets` has made for it."""

    def __init__(self, container: str) -> None:
        self._container = container

    def run(self, script: str, user: str = "root", **variables: str) -> tuple[int, str]:
        """Return the exit code of a script, and what it prints."""
        given = [f"--env={name}={value}" for name, value in variables.items()]
        command = ["docker", "exec", f"--user={user}", *given, self._container, "bash", "-c"]
        done = subprocess.run(
            [*command, script], capture_output=True, text=True, check=False, timeout=60
        )
        return done.returncode, done.stdout.strip()

    def step(self, name: str, kill_at: int = 0) -> bool:
        """Run a step of the rotation; whether it was not killed."""
        if name == "roles":
            pinned = "PGOPTIONS='-c search_path=pg_catalog -c role=none'"
            psql = "psql --no-psqlrc --quiet --set=ON_ERROR_STOP=1 --dbname=postgres"
            code, said = self.run(f"{pinned} {psql} --file=/roles.sql", "postgres")
        else:
            variables = {"KILL_AT": str(kill_at), "BASH_ENV": "/killed.sh"}
            code, said = self.run(f"bash /create-secrets.sh {name}; exit", **variables)
        assert code in {0, 128 + signal.SIGKILL}, said
        return code == 0

    def login(self) -> tuple[str, str]:
        """Return the name and the password that a replica would start with."""
        script = 'cd /run/secrets; user=$(readlink database-password); echo "$user $(< "$user")"'
        user, password = self.run(script)[1].split()
        return user, password

    def lets_in(self, *logins: tuple[str, str]) -> list[bool]:
        """Whether each of them can log in."""
        psql = "psql --host=127.0.0.1 --dbname=berth --command='SELECT 1' > /dev/null 2>&1"
        script = "; ".join(
            f"PGPASSWORD={password} {psql} --username={user} && echo yes || echo no"
            for user, password in logins
        )
        return [said == "yes" for said in self.run(script)[1].split()]


@pytest.fixture
def server() -> Iterator[Server]:
    """One that has been started for the first time."""
    variables = configuration()["services"]["secrets"]["environment"] | {"POSTGRES_PASSWORD": "x"}
    container = docker(
        *("run", "--detach", "--network=none"),
        *(f"--env={name}={value}" for name, value in variables.items()),
        f"--volume={REPOSITORY}/db/roles.sql:/roles.sql:ro",
        f"--volume={REPOSITORY}/db/create-secrets.sh:/create-secrets.sh:ro",
        f"--volume={HERE}/killed.sh:/killed.sh:ro",
        *(image_of("postgres"), "-c", "fsync=off"),
    ).splitlines()[-1]
    try:
        found = Server(container)
        ready = "pg_isready --quiet --host=127.0.0.1"
        poll("its start", lambda: found.run(ready)[0] == 0)
        folders = "/run/{secrets,owner-secrets,metrics-secrets,app,dns,status} /certificates"
        found.run(f"mkdir --parents {folders} /backups /backup-state")
        rules = "local all all trust\nhost all all all scram-sha-256"
        found.run(f'echo "{rules}" > $PGDATA/pg_hba.conf; pg_ctl reload', "postgres")
        assert found.step("")
        assert found.step("roles")
        yield found
    finally:
        docker("rm", "--force", "--volumes", container)


def test_every_step_may_be_killed_anywhere(server: Server) -> None:
    """Who logged in before still gets in, and who starts then; a start mends it, a run ends it."""
    old = server.login()

    def is_whole(step: str) -> bool:
        before, now = server.lets_in(old, server.login())
        # Nobody uses what is taken away.
        return now and (before or step == "retire")

    for number, step in enumerate(STEPS):
        kills = 0
        while step != "roles" and not server.step(step, kills + 1):
            kills += 1
            assert is_whole(step)
            # As `make up` does.
            assert server.step("")
            assert server.step("roles")
            assert is_whole(step)
        assert kills > 1 or step == "roles"
        for again in STEPS[: number + 1]:
            assert server.step(again)
    assert server.login()[0] == "berth_clone"
    assert server.lets_in(old, server.login()) == [False, True]
