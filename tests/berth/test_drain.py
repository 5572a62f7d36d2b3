import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import requests
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from tests.berth.programs import Environment, Server, eventually
from tests.ports import free_port

SLOW = "tests.faults"


def test_a_draining_replica_keeps_serving_and_says_that_it_is_leaving(
    migrated: Environment, log: Path
) -> None:
    """Each answer is the last one on its connection; the exit code is 0."""
    with Server(migrated, log, DRAIN_SECONDS="1") as server:
        server.ready()
        with requests.Session() as kept:
            assert "connection" not in kept.get(f"{server.url}/items", timeout=5).headers
            started = time.monotonic()
            server.drain()
            answer = kept.get(f"{server.url}/items", timeout=5)
        assert (answer.status_code, answer.headers["connection"]) == (200, "close")
        unready = server.get("/readyz")
        assert unready.json() == {"status": "unavailable", "reason": "draining"}
        assert server.get("/items/none").headers["connection"] == "close"
        assert server.exit_code() == 0
        assert 1 <= time.monotonic() - started < 3.5


def test_a_replica_that_is_still_sent_requests_serves_on(migrated: Environment, log: Path) -> None:
    """For four times the drain at most; a proxy on a busy machine may be late to notice."""
    with Server(migrated, log, DRAIN_SECONDS="0.5") as server:
        server.ready()
        server.terminate()
        started = time.monotonic()
        with pytest.raises(requests.ConnectionError):  # noqa: PT012 - until then every one is answered
            while time.monotonic() - started < 10:
                assert server.get("/version").status_code == 200
        assert time.monotonic() - started > 1.5
        assert server.exit_code() == 0


@pytest.mark.parametrize("path", ["/sleep/1.5", "/stream/1.5"])
def test_what_is_in_flight_finishes(migrated: Environment, log: Path, path: str) -> None:
    """Although it takes longer than the drain, also when its answer has already begun."""
    with Server(migrated, log, SLOW, DRAIN_SECONDS="0.3") as server, ThreadPoolExecutor() as pool:
        server.ready()
        answer = pool.submit(server.get, path)
        server.await_begun()
        server.terminate()
        assert answer.result().status_code == 200
        assert answer.result().text in {"1.5", "0123456789"}
        assert server.exit_code() == 0


def test_what_takes_longer_than_the_limit_is_cut(migrated: Environment, log: Path) -> None:
    """The limit is a setting."""
    with (
        Server(migrated, log, SLOW, DRAIN_SECONDS="0.1", SHUTDOWN_SECONDS="1") as server,
        ThreadPoolExecutor() as pool,
    ):
        server.ready()
        answer = pool.submit(server.get, "/sleep/8")
        server.await_begun()
        server.terminate()
        assert server.exit_code(4) == 0
        assert answer.exception() is not None or answer.result().status_code == 500


def test_a_websocket_goes_on_until_it_ends(migrated: Environment, log: Path) -> None:
    """It outlives the drain, and the server ends right after it."""
    with Server(migrated, log, SLOW, DRAIN_SECONDS="0.1") as server:
        server.ready()
        with connect(f"ws://127.0.0.1:{server.port}/echo") as websocket:
            server.terminate()
            eventually(lambda: not server.listens(), "the listener closes")
            for text in ("still", "there"):
                websocket.send(text)
                assert websocket.recv(timeout=2) == text
        assert server.exit_code(3) == 0


def test_a_websocket_that_stays_is_told_to_reconnect(migrated: Environment, log: Path) -> None:
    """1012: service restart, after the limit."""
    with Server(migrated, log, SLOW, DRAIN_SECONDS="0.1", SHUTDOWN_SECONDS="1") as server:
        server.ready()
        with connect(f"ws://127.0.0.1:{server.port}/echo") as websocket:
            server.terminate()
            with pytest.raises(ConnectionClosed) as closed:
                websocket.recv(timeout=5)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1012
        assert server.exit_code() == 0


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_at_once(migrated: Environment, log: Path, second: int) -> None:
    """Whatever is in flight, and as a shell would report it."""
    with Server(migrated, log, SLOW, DRAIN_SECONDS="60") as server, ThreadPoolExecutor() as pool:
        server.ready()
        pool.submit(server.get, "/sleep/8")
        server.await_begun()
        server.drain()
        server.process.send_signal(second)
        assert server.exit_code(1) == 128 + second
        assert "a second time: ending at once" in server.output()


def test_a_signal_before_start_up_has_finished_ends_at_once(
    migrated: Environment, log: Path
) -> None:
    """Here it waits for a database that is not there, and has said so."""
    with Server(migrated, log, DATABASE_PORT=str(free_port())) as server:
        eventually(lambda: "waiting for the database" in server.output(), "waiting")
        server.terminate()
        assert server.exit_code(1) == 143
        assert "SIGTERM before start-up has finished: ending at once" in server.output()


def test_a_hung_server_says_where_it_hangs_when_it_is_aborted(
    migrated: Environment, log: Path
) -> None:
    """SIGABRT comes from the container's health check; the loop need not turn for it."""
    with Server(migrated, log, SLOW) as server:
        server.ready()
        with pytest.raises(requests.Timeout):
            requests.get(f"{server.url}/block", timeout=0.3)
        server.await_begun()
        server.process.send_signal(signal.SIGABRT)
        assert server.exit_code(2) == -signal.SIGABRT
        assert "Fatal Python error: Aborted" in server.output()
        assert "in block" in server.output()
