import asyncio
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial

import pytest
import requests
import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send
from websockets.exceptions import ConnectionClosedError
from websockets.sync.client import connect

from berth.limits import LimitsMiddleware
from berth.websockets import BoundedWebSocket
from tests.berth.programs import Environment, Server, eventually
from tests.ports import free_port

LIMIT = 4
BODY = 10_000
MEMORY = 5 * BODY


@pytest.fixture(scope="module")
def bounded(migrated: Environment, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    settings = {"MAX_IN_FLIGHT": str(LIMIT), "MAX_BODY_BYTES": "1000"}
    log = tmp_path_factory.mktemp("bounded") / "log"
    with Server(migrated, log, "tests.faults", **settings) as server:
        yield server.ready()


class Busy:
    """An app of no framework, within limits: it reads a body, and holds it until it is released.

    Like many a framework it answers 400 when the client goes away, whatever the reason.
    """

    def __init__(self) -> None:
        self.port = free_port()
        self.limits = LimitsMiddleware(
            self.answer, max_in_flight=LIMIT, max_body_bytes=BODY, body_memory=MEMORY
        )
        self.inside = self.most_inside = 0
        self.left: Counter[str] = Counter()
        self.release = threading.Event()

    async def answer(self, _scope: Scope, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            if message["type"] == "http.disconnect" or not message["more_body"]:
                break
        self.left[message["type"]] += 1
        if message["type"] == "http.request":
            self.inside += 1
            self.most_inside = max(self.inside, self.most_inside)
            while not self.release.is_set():  # noqa: ASYNC110 - a thread sets it
                await asyncio.sleep(0.01)
            self.inside -= 1
        status = 200 if message["type"] == "http.request" else 400
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body", "body": b""})


@contextmanager
def served(app: ASGIApp, port: int) -> Iterator[None]:
    """Serve an app in a thread, as the server does."""
    config = uvicorn.Config(
        app,
        port=port,
        loop="uvloop",
        http="httptools",
        ws=BoundedWebSocket,
        ws_max_size=BODY,
        lifespan="off",
        log_config=None,
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        eventually(lambda: server.started, "the server")
        yield
    finally:
        server.should_exit = True
        thread.join()


@pytest.fixture
def busy() -> Iterator[Busy]:
    busy = Busy()
    with served(busy.limits, busy.port):
        yield busy
        busy.release.set()
    assert (busy.limits.in_flight, busy.limits.body_bytes, busy.limits.uploads) == (0, 0, {})


def upload(busy: Busy, sent: int, size: int = BODY) -> socket.socket:
    """Begin an upload."""
    return begin(busy, f"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: {size}\r\n\r\n{'x' * sent}")


def status(connection: socket.socket) -> str:
    """Return the status of the answer."""
    return connection.recv(4096).decode().split()[1]


def begin(server: Server | Busy, head: str) -> socket.socket:
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


def test_bodies_on_their_way_have_so_much_memory_and_no_more(busy: Busy) -> None:
    """The oldest gives way, with 429, and the newest is served; whoever it is that sends less."""
    with ExitStack() as clients:
        slow = [clients.enter_context(upload(busy, BODY - 1)) for _ in range(3)]
        eventually(lambda: busy.limits.body_bytes > 3 * (BODY - 1), "three bodies")
        slow += [clients.enter_context(upload(busy, BODY - 1)) for _ in range(9)]
        for connection in slow[:8]:
            answer = connection.recv(4096)
            assert answer.split()[1] == b"429"
            assert b"retry-after: 1" in answer
        assert busy.limits.body_bytes <= MEMORY
        quick = clients.enter_context(upload(busy, BODY))
        busy.release.set()
        assert status(quick) == "200"
        slow[-1].sendall(b"x")
        assert status(slow[-1]) == "200"
    eventually(lambda: busy.left["http.disconnect"] == 11, "the app is told of all the others")


def test_many_bodies_that_end_at_once_are_not_all_let_in(busy: Busy) -> None:
    """They were let in one by one, when there was room; what comes on top gets 429."""
    with ExitStack() as clients:
        uploads = [clients.enter_context(upload(busy, 99, 100)) for _ in range(3 * LIMIT)]
        eventually(lambda: len(busy.limits.uploads) == len(uploads), "all of them are let in")
        for connection in uploads:
            connection.sendall(b"x")
        eventually(lambda: busy.inside == LIMIT, "those that there is room for")
        eventually(lambda: busy.left["http.disconnect"] == 2 * LIMIT, "the others")
        busy.release.set()
        assert Counter(map(status, uploads)) == {"200": LIMIT, "429": 2 * LIMIT}
    assert busy.most_inside == LIMIT


def test_small_parts_count_for_more_than_their_bytes(busy: Busy) -> None:
    """Each of them takes memory besides."""
    with upload(busy, 0) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for part in range(50):
            connection.sendall(b"x")
            counted = partial(lambda parts: busy.limits.body_bytes > 50 * parts, part + 1)
            eventually(counted, "a part that counts for more than 50 bytes")


def test_what_the_app_makes_of_a_refusal_is_not_sent(busy: Busy) -> None:
    """413 for a body that does not say how large it is, though this app says 400."""
    head = "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    with begin(busy, head + f"{BODY:x}\r\n{'x' * BODY}\r\n" + "1\r\nx\r\n") as connection:
        assert status(connection) == "413"
    eventually(lambda: busy.left["http.disconnect"] == 1, "the app is told")


def test_a_check_that_comes_from_outside_is_a_request_like_any_other(bounded: Server) -> None:
    """It has the address for which a proxy asks; without one it is always answered."""
    outside = {"X-Forwarded-For": "192.0.2.1"}
    with ThreadPoolExecutor(LIMIT) as clients:
        busy = [clients.submit(bounded.get, "/sleep/2") for _ in range(LIMIT)]
        eventually(lambda: bounded.get("/version").status_code == 429, "the limit")
        for path in ("/livez", "/readyz"):
            answer = requests.get(f"{bounded.url}{path}", headers=outside, timeout=5)
            assert answer.status_code == 429
            assert bounded.get(path).status_code == 200
        assert [one.result().status_code for one in busy] == [200] * LIMIT
    assert requests.get(f"{bounded.url}/readyz", headers=outside, timeout=5).status_code == 200


def test_a_message_over_a_websocket_is_bounded_as_a_body_is(bounded: Server) -> None:
    """And nothing is unfolded: a kilobyte could become a message of the largest size."""
    with connect(f"ws://127.0.0.1:{bounded.port}/echo") as websocket:
        websocket.send("x" * 1000)
        assert websocket.recv() == "x" * 1000
        assert websocket.protocol.extensions == []
        websocket.send("x" * 1001)
        with pytest.raises(ConnectionClosedError) as closed:
            websocket.recv()
    assert closed.value.rcvd
    assert closed.value.rcvd.code == 1009


async def echo(_scope: Scope, receive: Receive, send: Send) -> None:
    """Send each message back."""
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] != "websocket.disconnect":
        if message["type"] == "websocket.receive":
            await send({"type": "websocket.send", "text": message["text"]})


def test_websockets_together_hold_so_much_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever holds most is told to come back later; a quiet one stays and holds nothing."""
    monkeypatch.setattr(BoundedWebSocket, "memory", MEMORY, raising=False)
    port = free_port()
    url = f"ws://127.0.0.1:{port}/"
    # All but the last byte of a message of the largest size.
    unfinished = b"\x81\xfe" + BODY.to_bytes(2, "big") + bytes(4) + b"x" * (BODY - 1)
    with served(echo, port), connect(url) as quiet, ExitStack() as clients:
        hoards = [clients.enter_context(connect(url)) for _ in range(12)]
        for hoard in hoards:
            hoard.socket.sendall(unfinished)

        def closed() -> list[int]:
            return [code for hoard in hoards if (code := hoard.close_code)]

        eventually(lambda: closed() == [1013] * 7, "those for which there is no room are closed")
        assert BoundedWebSocket.total <= MEMORY
        quiet.send("still here")
        assert quiet.recv() == "still here"
    assert (BoundedWebSocket.total, BoundedWebSocket.holders) == (0, set())
