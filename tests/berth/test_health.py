import socket
from pathlib import Path

import pytest

from tests.berth.postgres import Postgres
from tests.berth.programs import Environment, Server, eventually, migrate


def test_a_replica_says_that_it_lives_and_who_it_is(migrated: Environment, log: Path) -> None:
    """The version is the image's, the replica's name is its host's."""
    with Server(migrated, log, APP_VERSION="1.2.3") as server:
        server.ready()
        assert server.get("/livez").json() == {"status": "ok"}
        assert server.get("/version").json() == {
            "version": "1.2.3",
            "replica": socket.gethostname(),
        }


def test_an_app_may_have_a_version_of_its_own(migrated: Environment, log: Path) -> None:
    """Berth's is at VERSION_PATH then, by which metrics name it."""
    with Server(migrated, log, APP_VERSION="1.2.3", VERSION_PATH="/berth/version") as server:
        server.ready()
        assert server.get("/berth/version").json()["version"] == "1.2.3"
        assert server.get("/version").json() == {"detail": "Not Found"}
        assert any("/berth/version" in one for one in server.metrics()), server.metrics()


def test_a_replica_is_ready_only_once_the_schema_is_there(
    empty: Environment, postgres: Postgres, log: Path
) -> None:
    """It notices by itself when the migration has run, and then never asks again."""
    with Server(empty, log) as server:
        eventually(lambda: "startup complete" in log.read_text(), "started")
        eventually(lambda: "running on" in log.read_text(), "listening")
        answer = server.get("/readyz")
        assert answer.status_code == 503
        assert answer.json() == {
            "status": "unavailable",
            "reason": "the schema is at nothing, this version needs 0001: run migrate",
        }
        assert server.get("/livez").status_code == 200
        migrate(empty)
        eventually(lambda: server.get("/readyz").json() == {"status": "ok"}, "ready", 2)
        postgres.sql(empty["DATABASE_NAME"], "DROP TABLE alembic_version")
        assert server.get("/readyz").status_code == 200


@pytest.mark.parametrize("revision", ["0002", "0011"])
def test_a_replica_accepts_a_schema_newer_than_its_own(
    empty: Environment, postgres: Postgres, log: Path, revision: str
) -> None:
    """Or a rollback after a migration could not work."""
    migrate(empty)
    postgres.sql(empty["DATABASE_NAME"], f"UPDATE alembic_version SET version_num = '{revision}'")
    with Server(empty, log) as server:
        server.ready()
