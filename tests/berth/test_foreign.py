"""An app that does nothing for it keeps Berth's promises."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import requests

from tests.berth.postgres import Postgres
from tests.berth.programs import Environment, Server, eventually

DRIVERS = ("/asyncpg", "/sqlalchemy-async", "/sqlalchemy-psycopg")
HOST = {"Host": "shop.example"}


@pytest.fixture(scope="module")
def foreign(migrated: Environment, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("foreign")
    (folder / "secrets").mkdir()
    (folder / "secrets/API_KEY").write_text("secret\n")
    (folder / "secrets/README.md").write_text("no variable")
    (folder / "app.env").write_text(
        "# What the app wants\nCOLOUR='deep blue'\nexport POSTGRES_SERVER=${PGHOST}\n"
        "LOG_LEVEL=loud\n"
    )
    settings = {"APP": "tests.foreign.drivers:app", "APP_FILES": str(folder)}
    with Server(migrated, folder / "log", **settings) as server:
        yield server.ready()


def get(server: Server, path: str) -> requests.Response:
    """Ask as the app wants to be asked."""
    return requests.get(server.url + path, headers=HOST, timeout=15)


def test_probes_stand_outside_the_apps_middleware(foreign: Server) -> None:
    """It refuses every other name, and they are asked by address."""
    assert foreign.get("/asyncpg").status_code == 400
    for path in ("/livez", "/readyz", "/version"):
        assert foreign.get(path).status_code == 200


@pytest.mark.parametrize("fault", [Postgres.stop, Postgres.kill])
def test_a_database_that_is_away_is_503_by_any_driver(
    foreign: Server, postgres: Postgres, fault: Callable[[Postgres], None]
) -> None:
    """With connections open and with none, and the log says so without a traceback."""
    for path in DRIVERS * 2:
        assert get(foreign, path).text == "1"
    before = len(foreign.output())
    fault(postgres)
    try:
        with ThreadPoolExecutor(4) as clients:
            answers = list(clients.map(lambda path: get(foreign, path), DRIVERS * 4))
    finally:
        postgres.start()
    assert [answer.status_code for answer in answers] == [503] * len(answers)
    assert {answer.headers["Retry-After"] for answer in answers} == {"1"}
    assert "the database is unavailable" in foreign.output()
    assert "Traceback" not in foreign.output()[before:]
    eventually(lambda: {get(foreign, path).text for path in DRIVERS} == {"1"}, "back")


def test_a_silent_database_is_503_when_the_driver_gives_up(
    foreign: Server, postgres: Postgres
) -> None:
    """When that is, is the app's to say."""
    assert get(foreign, "/asyncpg").text == "1"
    postgres.freeze()
    try:
        assert get(foreign, "/asyncpg").status_code == 503
    finally:
        postgres.thaw()
    eventually(lambda: get(foreign, "/asyncpg").text == "1", "back")


def test_misuse_of_a_driver_stays_a_bug(foreign: Server) -> None:
    """Though asyncpg gives it the class of a lost connection."""
    answer = get(foreign, "/misuse")
    assert (answer.status_code, answer.text) == (500, "Internal Server Error")
    eventually(lambda: "GET /misuse failed" in foreign.output(), "the traceback")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("COLOUR", "deep blue"),
        ("POSTGRES_SERVER", "127.0.0.1"),
        ("API_KEY", "secret"),
        ("LOG_LEVEL", "loud"),
        ("PGUSER", "berth"),
        ("README.md", None),
    ],
)
def test_the_app_finds_its_environment(foreign: Server, name: str, value: str | None) -> None:
    """Its own variables, its secrets and the way to its database; for Berth they mean nothing."""
    assert get(foreign, f"/environment/{name}").json() == value


def test_a_bad_line_of_the_apps_variables_is_named(
    migrated: Environment, tmp_path: Path, log: Path
) -> None:
    """By its number alone: the line may be a secret."""
    (tmp_path / "app.env").write_text("GOOD=1\n\nhunter2\n")
    with Server(migrated, log, APP_FILES=str(tmp_path)) as server:
        assert server.exit_code() == 1
        assert "app.env, line 3: give NAME=value" in server.output()
        assert "hunter2" not in server.output()
