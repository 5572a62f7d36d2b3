import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.berth.postgres import PASSWORD, Postgres
from tests.berth.programs import Environment, Server, migrate


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    postgres = Postgres()
    try:
        postgres.run()
        yield postgres
    finally:
        postgres.remove()


@pytest.fixture(scope="session")
def password_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("secrets") / "database-password"
    file.write_text(PASSWORD + "\n")
    return file


@pytest.fixture(scope="session")
def new_database(postgres: Postgres, password_file: Path) -> Callable[[], Environment]:
    """Makes an empty database and returns the environment that leads to it."""

    def new() -> Environment:
        name = postgres.create_database()
        return {
            "PATH": os.environ["PATH"],
            "HOST": "127.0.0.1",
            # For alembic where it is run by hand; Berth's programs make the same of what follows.
            "PGHOST": "127.0.0.1",
            "PGPORT": str(postgres.port),
            "PGDATABASE": name,
            "PGUSER": "berth",
            "PGPASSWORD": PASSWORD,
            "DATABASE_HOST": "127.0.0.1",
            "DATABASE_PORT": str(postgres.port),
            "DATABASE_NAME": name,
            "DATABASE_USER": "berth",
            "DATABASE_PASSWORD_FILE": str(password_file),
        }

    return new


@pytest.fixture
def empty(new_database: Callable[[], Environment]) -> Environment:
    """An empty database of the test's own."""
    return new_database()


@pytest.fixture(scope="session")
def migrated(new_database: Callable[[], Environment]) -> Environment:
    """A database at head, shared by the tests that do not change its schema."""
    environment = new_database()
    migrate(environment)
    return environment


@pytest.fixture(scope="session")
def api(migrated: Environment, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(migrated, tmp_path_factory.mktemp("api") / "log") as server:
        yield server.ready()


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "log"
