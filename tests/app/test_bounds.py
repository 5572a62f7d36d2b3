import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest
import requests

from tests.app.programs import Environment, Server, eventually

LIMIT = 4


@pytest.fixture(scope="module")
def bounded(migrated: Environment, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    settings = {"MAX_IN_FLIGHT": str(LIMIT), "MAX_BODY_BYTES": "1000"}
    log = tmp_path_factory.mktemp("bounded") / "log"
    with Server(migrated, log, "tests.faults", **settings) as server:
        yield server.ready()


def begin(server: Server, head: str) -> socket.socket:
    """Open a connection and send the beginning of a request."""
    connection = socket.create_connection(("127.0.0.1", server.port), timeout=5)
    connection.sendall(head.encode())
    return connection


def test_more_requests_than_the_limit_get_429_at_once(bounded: Server) -> None:
    """With Retry-After; the health checks are served all the while, and so is what comes after."""
    with ThreadPoolExecutor(LIMIT) as clients:
        busy = [clients.submit(bounded.get, "/sleep/2") for _ in range(LIMIT)]
        eventually(lambda: bounded.get("/version").status_code == 429, "the limit")
        answer = bounded.get("/items")
        assert (answer.status_code, answer.headers["Retry-After"]) == (429, "1")
        assert not any(one.done() for one in busy)
        assert "X-Request-ID" in answer.headers
        assert bounded.get("/readyz").status_code == 200
        assert bounded.get("/livez").status_code == 200
        assert [one.result().status_code for one in busy] == [200] * LIMIT
    assert bounded.get("/items").status_code == 200


def test_bodies_that_are_still_on_their_way_do_not_count(bounded: Server) -> None:
    """Nor do answers that have begun: slow clients must not keep others out."""
    post = "POST /items HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    with ExitStack() as slow:
        for _ in range(LIMIT * 2):
            slow.enter_context(begin(bounded, post + "Content-Length: 15\r\n\r\n{"))
            reader = slow.enter_context(begin(bounded, "GET /stream/3 HTTP/1.1\r\nHost: x\r\n\r\n"))
            assert reader.recv(12) == b"HTTP/1.1 200"
        assert bounded.get("/items").status_code == 200
        assert bounded.post("/items", {"name": "quick"}).status_code == 201


def test_a_count_that_went_up_comes_down(bounded: Server) -> None:
    """Whatever way a request ends: served, failed, refused, gone."""
    for _ in range(LIMIT * 3):
        bounded.post("/bug", "x")
        bounded.post("/items", {"name": ""})
        bounded.get("/nothing")
        requests.post(f"{bounded.url}/items", data=b"x" * 2000, timeout=5)
        begin(bounded, "GET /sleep/0.1 HTTP/1.1\r\nHost: x\r\n\r\n").close()
        begin(bounded, "POST /items HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{").close()
    eventually(
        lambda: {bounded.get("/items").status_code for _ in range(LIMIT)} == {200}, "free", 2
    )


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_that_is_too_large_is_413(bounded: Server, chunked: bool) -> None:
    """Whether it says so itself or not."""
    body = b'{"name": "' + b"x" * 2000 + b'"}'
    data = iter([body[:500], body[500:]]) if chunked else body
    headers = {"Content-Type": "application/json"}
    answer = requests.post(f"{bounded.url}/items", data=data, headers=headers, timeout=5)
    assert answer.status_code == 413
    assert "X-Request-ID" in answer.headers
    assert bounded.post("/items", {"name": "x" * 200}).status_code == 201


def test_an_address_that_is_too_long_is_414(bounded: Server) -> None:
    """8 KiB, path and query together."""
    assert bounded.get(f"/items?after={'x' * 8000}").status_code == 422
    assert bounded.get(f"/items?after={'x' * 8200}").status_code == 414
    assert bounded.get(f"/{'x' * 8200}").status_code == 414
