import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from tests.berth.programs import Environment, Server, eventually

PERSONAL = "Ada Lovelace, born 1815"
TOKEN = "token-that-nobody-may-see"


@pytest.fixture(scope="module")
def faulty(migrated: Environment, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    log = tmp_path_factory.mktemp("faulty") / "log"
    with Server(migrated, log, "tests.faults") as server:
        yield server.ready()


def records(server: Server) -> list[dict[str, str]]:
    """What was logged, each line of which must be JSON."""
    return [json.loads(line) for line in server.output().splitlines()]


@pytest.mark.parametrize("path", ["/bug", "/bug/database", "/bug/answer"])
def test_a_bug_is_a_500_that_says_nothing_but_its_id(faulty: Server, path: str) -> None:
    """Its log has the same id and the traceback, and nothing of what the client sent."""
    answer = faulty.post(f"{path}?token={TOKEN}", PERSONAL)
    assert answer.status_code == 500
    own_id = answer.headers["X-Request-ID"]
    assert answer.text == "Internal Server Error"
    eventually(lambda: own_id in faulty.output(), "the record")
    (record,) = [one for one in records(faulty) if one.get("request_id") == own_id]
    assert record["level"] == "ERROR"
    assert record["message"] == f"POST {path} failed"
    assert "Traceback" in record["exception"]
    assert PERSONAL not in faulty.output()
    assert TOKEN not in faulty.output()


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nothing", 404),
        ("PATCH", "/items", 405),
        ("POST", "/items", 422),
        ("GET", f"/items?after={'x' * 9000}", 414),
        ("GET", "/items", 200),
        ("GET", "/docs", 200),
    ],
)
def test_every_answer_has_an_id(api: Server, method: str, path: str, status: int) -> None:
    """The id is another one each time."""
    answers = [requests.request(method, api.url + path, timeout=5) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [status] * 2
    ids = {answer.headers["X-Request-ID"] for answer in answers}
    assert len(ids) == 2
    assert all(re.fullmatch("[0-9a-f]{16}", one) for one in ids)


def test_an_id_from_outside_is_not_taken_over(faulty: Server) -> None:
    """It could be another request's, or a line of somebody's own in the log."""
    headers = {"X-Request-ID": "of-the-client"}
    answer = requests.post(f"{faulty.url}/bug", json="x", headers=headers, timeout=5)
    assert answer.headers["X-Request-ID"] != "of-the-client"
    assert "of-the-client" not in faulty.output()


def test_a_bug_costs_no_connection(faulty: Server) -> None:
    """Or the next request on it would be lost with it."""
    with requests.Session() as session:
        for _ in range(3):
            answer = session.post(f"{faulty.url}/bug", json="x", timeout=5)
            assert answer.headers.get("Connection") != "close"
        (pool,) = session.get_adapter("http://").poolmanager.pools._container.values()  # type: ignore[attr-defined]  # noqa: SLF001
        assert pool.num_connections == 1


def test_logs_can_be_read_without_a_machine(migrated: Environment, log: Path) -> None:
    """LOG_FORMAT=text, as development has it."""
    with Server(migrated, log, LOG_FORMAT="text") as server:
        server.ready()
        assert re.search(
            r"^\S+Z INFO +uvicorn.error: Application startup", log.read_text(), re.MULTILINE
        )


def test_pages_of_other_origins_may_not_read_answers(api: Server) -> None:
    """CORS is closed unless it is set."""
    answer = requests.get(
        f"{api.url}/items", headers={"Origin": "https://other.example"}, timeout=5
    )
    assert not [name for name in answer.headers if name.lower().startswith("access-control")]


def test_pages_of_origins_that_are_set_may_read_answers(migrated: Environment, log: Path) -> None:
    """These and no others."""
    with Server(migrated, log, CORS_ORIGINS="https://a.example https://b.example") as server:
        server.ready()
        for origin, allowed in (("https://b.example", True), ("https://c.example", False)):
            answer = requests.get(f"{server.url}/items", headers={"Origin": origin}, timeout=5)
            assert (answer.headers.get("Access-Control-Allow-Origin") == origin) == allowed
