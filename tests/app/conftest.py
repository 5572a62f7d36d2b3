import os
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest
from fastapi.testclient import TestClient

from app.main import app

POSTGRES_IMAGE = os.environ.get("POSTGRES_IMAGE") or "postgres:18.6"


@pytest.fixture(scope="package")
def database() -> Iterator[None]:
    """A new PostgreSQL with the newest schema.

    It is what CI has at TEST_PGHOST, or else Docker runs one for as long as the tests do.
    """
    host, port, container = os.environ.get("TEST_PGHOST"), "5432", ""
    if not host:
        container = docker(
            *("run", "--detach", "--publish=127.0.0.1::5432"),
            *("--env=POSTGRES_PASSWORD=test", POSTGRES_IMAGE, "-c", "fsync=off"),
        )
        host, port = docker("port", container, "5432").splitlines()[0].rsplit(":", 1)
    try:
        with pytest.MonkeyPatch.context() as environment:
            environment.setenv("PGHOST", host)
            environment.setenv("PGPORT", port)
            environment.setenv("PGDATABASE", "postgres")
            environment.setenv("PGUSER", "postgres")
            environment.setenv("PGPASSWORD", "test")
            if container:
                wait(container)
            alembic("upgrade", "head")
            yield
    finally:
        if container:
            docker("rm", "--force", "--volumes", container)


@pytest.fixture(scope="package")
def client(database: None) -> Iterator[TestClient]:  # noqa: ARG001
    with TestClient(app) as client:
        yield client


def wait(container: str) -> None:
    """Return once it accepts connections over TCP, as it does not during its own setup."""
    for _ in range(600):
        ready = ["docker", "exec", container, "pg_isready", "--quiet", "--host=127.0.0.1"]
        if subprocess.run(ready, check=False).returncode == 0:
            return
        time.sleep(0.1)
    pytest.fail(docker("logs", container))


def docker(*command: str) -> str:
    return subprocess.check_output(["docker", *command], text=True).strip()


def alembic(*command: str) -> None:
    subprocess.run([sys.executable, "-m", "alembic", *command], check=True)
