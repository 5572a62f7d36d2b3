import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import requests

from tests.berth.postgres import Postgres
from tests.berth.programs import Server, eventually

Fault = Callable[[Postgres], None]

# The example waits 1.5 s for a connection, for its answer, and for its way back to the pool.
SOON = 5

FAULTS = [
    pytest.param(Postgres.stop, Postgres.start, id="stopped"),
    pytest.param(Postgres.kill, Postgres.start, id="killed"),
    pytest.param(Postgres.freeze, Postgres.thaw, id="silent"),
]


@pytest.fixture(autouse=True)
def warm(api: Server) -> Iterator[None]:
    """Every connection of the pool is open, so that each could turn out to be dead."""
    with ThreadPoolExecutor(16) as clients:
        list(clients.map(lambda _: api.get("/items"), range(64)))
    yield
    eventually(lambda: api.get("/items").status_code == 200, "back")


@pytest.mark.parametrize(("begin", "end"), FAULTS)
def test_requests_soon_get_503_while_the_database_is_away(
    api: Server, postgres: Postgres, begin: Fault, end: Fault
) -> None:
    """With Retry-After; what needs no database is served, and the replica stays ready."""
    begin(postgres)
    try:
        with ThreadPoolExecutor(12) as clients:
            reads = [clients.submit(api.get, "/items") for _ in range(8)]
            writes = [clients.submit(api.post, "/items", {"name": "lost"}) for _ in range(4)]
        for answer in [future.result() for future in reads + writes]:
            assert answer.status_code == 503
            assert answer.headers["Retry-After"] == "1"
            assert answer.json() == {"detail": "The database is unavailable, try again."}
            assert answer.elapsed.total_seconds() < SOON
        assert api.get("/livez").status_code == 200
        assert api.get("/readyz").status_code == 200
    finally:
        end(postgres)
    eventually(lambda: api.get("/items").status_code == 200, "back")


@pytest.mark.parametrize("stop", [Postgres.stop, Postgres.kill])
def test_a_restart_between_requests_is_not_noticed(
    api: Server, postgres: Postgres, stop: Fault
) -> None:
    """No connection of the old server is handed to a request, read or write."""
    stop(postgres)
    postgres.start()
    with ThreadPoolExecutor(8) as clients:
        answers = list(clients.map(lambda n: api.post("/items", {"name": f"{n}"}), range(8)))
    assert [answer.status_code for answer in answers] == [201] * 8


def test_connections_ended_by_an_administrator_are_no_bug(api: Server, postgres: Postgres) -> None:
    """What runs on a dying connection gets 503; no answer is a 500."""
    codes: set[int] = set()
    for _ in range(5):
        with ThreadPoolExecutor(8) as clients:
            reads = [clients.submit(api.get, "/items") for _ in range(40)]
            postgres.sql(
                "postgres",
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE client_addr IS NOT NULL",
            )
        codes |= {read.result().status_code for read in reads}
    assert codes <= {200, 503}


def test_no_acknowledged_write_is_lost_and_none_is_doubled(
    api: Server, postgres: Postgres, migrated: dict[str, str]
) -> None:
    """While the server is killed under load: every 201 is there, every name at most once."""
    acknowledged: list[str] = []
    codes: set[int] = set()
    until = time.monotonic() + 4

    def client(number: int) -> None:
        for count in range(10_000):
            if time.monotonic() > until:
                return
            name = f"load-{number}-{count}"
            answer = api.post("/items", {"name": name})
            codes.add(answer.status_code)
            if answer.status_code == 201:
                acknowledged.append(name)

    with ThreadPoolExecutor(4) as clients:
        running = [clients.submit(client, number) for number in range(4)]
        time.sleep(0.5)
        postgres.kill()
        postgres.start()
    assert [future.result() for future in running] == [None] * 4
    stored = postgres.sql(
        migrated["DATABASE_NAME"], "SELECT name FROM items WHERE name LIKE 'load-%'"
    ).split()
    assert codes <= {201, 503}
    assert len(stored) == len(set(stored))
    assert set(acknowledged) <= set(stored)


def test_a_statement_that_waits_too_long_is_503_too(
    api: Server, postgres: Postgres, migrated: dict[str, str]
) -> None:
    """Somebody holds the table; the server ends the statement and keeps the connection."""
    with ThreadPoolExecutor(1) as holder:
        held = holder.submit(
            postgres.sql,
            migrated["DATABASE_NAME"],
            "BEGIN; LOCK TABLE items; SELECT pg_sleep(5)",
        )
        eventually(lambda: _locked(postgres), "locked")
        answer = api.get("/items")
        held.result()
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")
    assert answer.elapsed.total_seconds() < SOON
    assert api.get("/items").status_code == 200


def test_nothing_is_acknowledged_before_it_is_committed(
    api: Server, postgres: Postgres, migrated: dict[str, str]
) -> None:
    """Here the database refuses it at the very end of the transaction."""
    postgres.sql(
        migrated["DATABASE_NAME"],
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS "
        "'BEGIN RAISE EXCEPTION USING MESSAGE = ''refused''; END';"
        "CREATE CONSTRAINT TRIGGER refuse AFTER INSERT ON items DEFERRABLE INITIALLY DEFERRED "
        "FOR EACH ROW EXECUTE FUNCTION refuse()",
    )
    try:
        assert api.post("/items", {"name": "refused"}).status_code == 500
    finally:
        postgres.sql(migrated["DATABASE_NAME"], "DROP FUNCTION refuse CASCADE")


def test_an_ordinary_bug_stays_a_500(
    api: Server, postgres: Postgres, migrated: dict[str, str]
) -> None:
    """Only the absence of the database is 503."""
    postgres.sql(migrated["DATABASE_NAME"], "ALTER TABLE items RENAME TO renamed")
    try:
        assert requests.get(f"{api.url}/items", timeout=5).status_code == 500
    finally:
        postgres.sql(migrated["DATABASE_NAME"], "ALTER TABLE renamed RENAME TO items")


def _locked(postgres: Postgres) -> bool:
    return bool(
        postgres.sql("postgres", "SELECT 1 FROM pg_locks WHERE mode = 'AccessExclusiveLock'")
    )


def _end_connections(postgres: Postgres) -> None:
    postgres.sql(
        "postgres",
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE client_addr IS NOT NULL",
    )


@pytest.mark.parametrize(
    "make",
    [
        "psycopg.connect().execute(ddl)",
        "sqlalchemy.create_engine('postgresql+psycopg://').connect().exec_driver_sql(ddl)",
        "await (await asyncpg.connect()).execute(ddl)",
    ],
)
def test_an_app_that_makes_tables_when_it_starts_is_told_what_to_set(
    tmp_path: Path, migrated: dict[str, str], make: str
) -> None:
    """In one line below its own traceback."""
    (tmp_path / "main.py").write_text(
        "import asyncpg, contextlib, fastapi, psycopg, sqlalchemy\n"
        "ddl = 'CREATE TABLE pg_catalog.heroes (name text)'\n"
        "@contextlib.asynccontextmanager\n"
        f"async def start(_):\n    {make}\n    yield\n"
        "app = fastapi.FastAPI(lifespan=start)\n"
    )
    app = {
        "APP": "main:app",
        "APP_FILES": str(tmp_path),
        "PYTHONPATH": str(tmp_path),
        "LOG_FORMAT": "text",
    }
    with Server(migrated, tmp_path / "log", **app) as server:
        assert server.process.wait(30) != 0
    said = [line for line in server.output().splitlines() if "makes no tables" in line]
    assert len(said) == 1
    assert 'permission denied to create "pg_catalog.heroes": the app reads and' in said[0]
    assert "MIGRATE=python -c" in said[0]
