import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest
import requests
from websockets.sync.client import connect

from tests.berth.programs import Environment, Server, eventually
from tests.ports import free_port

COUNT = 3


@pytest.fixture
def server(migrated: Environment, log: Path) -> Iterator[Server]:
    """A server of several processes, all of them up."""
    with _server(migrated, log) as server:
        server.ready()
        eventually(lambda: len(_serving(server)) == COUNT, "all processes serving")
        yield server


def test_every_worker_serves(server: Server) -> None:
    """And none of them is the parent, which only watches."""
    assert server.process.pid not in _serving(server)


def test_draining_workers_lose_no_request(server: Server) -> None:
    """What comes before a proxy has noticed is answered, by all of them; the exit code is 0."""
    results: Counter[str] = Counter()
    proxy_noticed = threading.Event()

    def client() -> None:
        while not proxy_noticed.is_set():
            try:
                results[str(requests.get(f"{server.url}/livez", timeout=5).status_code)] += 1
            except requests.RequestException as error:
                results[repr(error)] += 1

    with ThreadPoolExecutor() as pool:
        slow = pool.submit(server.get, "/sleep/2")
        clients = [pool.submit(client) for _ in range(3)]
        server.await_begun()
        server.drain()
        time.sleep(0.7)
        proxy_noticed.set()
        for each in clients:
            each.result()
        assert slow.result().text == "2.0"
    assert set(results) == {"200"}, results
    assert server.exit_code() == 0


def test_the_port_is_closed_while_a_worker_finishes(server: Server) -> None:
    """A connection to a replica on its way out is refused, and never waits for nobody."""
    with connect(f"ws://127.0.0.1:{server.port}/echo") as websocket:
        server.terminate()
        eventually(lambda: not server.listens(), "the listener closes")
        websocket.send("still here")
        assert websocket.recv(timeout=2) == "still here"
        assert not server.listens()
    assert server.exit_code(3) == 0


@pytest.mark.parametrize("fault", ["block", "freeze"])
def test_a_hung_worker_is_found_and_replaced(server: Server, fault: str) -> None:
    """Whatever keeps its loop from turning; meanwhile the others take what is new."""
    before = _serving(server)
    victim = before.pop()
    if fault == "block":
        victim = _block_one(server)
    else:
        os.kill(victim, signal.SIGSTOP)
    eventually(lambda: f"worker {victim} is hung: SIGABRT" in server.output(), "found")
    eventually(lambda: len(_serving(server) - {victim}) == COUNT, "replaced")
    assert server.process.poll() is None
    if fault == "block":
        assert "in block" in server.output()


def test_a_killed_worker_is_replaced(server: Server) -> None:
    """The container stays up, and says what happened."""
    time.sleep(1.5)  # it must not count as one that cannot start
    victim = _serving(server).pop()
    os.kill(victim, signal.SIGKILL)
    eventually(lambda: len(_serving(server) - {victim}) == COUNT, "replaced")
    assert "a worker ended with 137: starting another" in server.output()


def test_a_worker_that_cannot_stay_up_ends_the_container(server: Server) -> None:
    """Docker's restart policy backs off and counts; a loop in here would hide the crash."""
    deadline = time.monotonic() + 10
    while server.process.poll() is None and time.monotonic() < deadline:
        for worker in _children(server):
            with suppress(ProcessLookupError):
                os.kill(worker, signal.SIGKILL)
    assert server.exit_code() == 137
    assert "soon after its start: ending all" in server.output()


def test_workers_that_cannot_start_end_the_container(migrated: Environment, log: Path) -> None:
    """With their own exit code; until one has started, the port is closed."""
    with _server(migrated, log, DATABASE_PORT=str(free_port())) as server:
        eventually(lambda: "waiting for the database" in server.output(), "waiting")
        assert not server.listens()
        server.terminate()
        assert server.exit_code(1) == 143


def test_a_second_signal_ends_every_worker_at_once(server: Server) -> None:
    """As it does a single process."""
    with ThreadPoolExecutor() as pool:
        pool.submit(server.get, "/sleep/8")
        server.await_begun()
        server.drain()
        server.terminate()
        assert server.exit_code(1) == 143


def test_workers_do_not_outlive_their_parent(server: Server) -> None:
    """Nobody would ever stop them."""
    server.process.kill()
    eventually(lambda: not server.listens(), "all ended", 5)


def _server(environment: Environment, log: Path, **settings: str) -> Server:
    return Server(
        environment,
        log,
        "tests.faults",
        API_WORKERS=str(COUNT),
        DRAIN_SECONDS="1",
        **settings,
    )


def _serving(server: Server) -> set[int]:
    """The processes that answer."""

    def pid(_: int) -> int:
        try:
            return int(server.get("/busy/0.05").text)
        except requests.RequestException:
            return 0

    with ThreadPoolExecutor(12) as clients:
        return set(clients.map(pid, range(24))) - {0}


def _block_one(server: Server) -> int:
    with pytest.raises(requests.Timeout):
        requests.get(f"{server.url}/block", timeout=0.3)
    server.await_begun()
    children, alive = _children(server), set[int]()

    def others_answered() -> bool:
        alive.update(_serving(server))
        return len(children & alive) == COUNT - 1

    eventually(others_answered, "an answer of each of the others")
    (blocked,) = children - alive
    return blocked


def _children(server: Server) -> set[int]:
    pid = server.process.pid
    return {int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()}
