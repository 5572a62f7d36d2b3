import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from berth.recycling import Turns
from tests.berth.programs import Environment, Server, eventually

REQUESTS = 30


@pytest.fixture
def others(tmp_path: Path) -> Path:
    """The folder that replicas share."""
    folder = tmp_path / "turns"
    folder.mkdir()
    return folder


@pytest.fixture
def other(others: Path) -> Iterator[None]:
    """Another replica, as far as that folder knows."""
    ended = threading.Event()

    def serve() -> None:
        while not ended.wait(0.5):
            Turns(others, "other").serve()

    with ThreadPoolExecutor(1) as pool:
        pool.submit(serve)
        yield
        ended.set()


@pytest.mark.usefixtures("other")
@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_replica_starts_anew_when_nothing_is_in_flight_any_more(
    migrated: Environment, others: Path, log: Path, workers: str
) -> None:
    """In the same process, so that Docker does not take it for a crash."""
    with (
        _server(migrated, others, log, API_WORKERS=workers) as server,
        ThreadPoolExecutor(1) as pool,
    ):
        server.ready()
        began = server.output().count("Application startup complete")
        slow = pool.submit(server.get, "/sleep/5")
        _serve(server)
        eventually(lambda: "draining" in server.output(), "its turn")
        assert slow.result().status_code == 200
        eventually(
            lambda: server.output().count("Application startup complete") == 2 * began, "anew"
        )
        server.ready()
        server.terminate()
        assert server.exit_code() == 0


@pytest.mark.usefixtures("other")
@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_replica_that_is_told_to_stop_meanwhile_stops(
    migrated: Environment, others: Path, log: Path, workers: str
) -> None:
    """What is in flight finishes all the same."""
    with (
        _server(migrated, others, log, API_WORKERS=workers) as server,
        ThreadPoolExecutor(1) as pool,
    ):
        server.ready()
        _serve(server)
        slow = pool.submit(server.get, "/sleep/5")
        eventually(lambda: "draining" in server.output(), "its turn")
        server.terminate()
        assert slow.result().status_code == 200
        assert server.exit_code() == 0


def test_the_only_replica_serves_on(migrated: Environment, others: Path, log: Path) -> None:
    """Nobody could stand in for it."""
    with _server(migrated, others, log) as server:
        server.ready()
        _serve(server)
        eventually(lambda: "no other replica serves" in server.output(), "the reason")
        assert "draining" not in server.output()
        assert server.get("/items").status_code == 200


def _server(environment: Environment, others: Path, log: Path, **settings: str) -> Server:
    limits = {"RECYCLE_REQUESTS": str(REQUESTS), "DRAIN_SECONDS": "1"}
    limits["RECYCLE_FOLDER"] = str(others)
    return Server(environment, log, "tests.faults", **limits, **settings)


def _serve(server: Server) -> None:
    with ThreadPoolExecutor(4) as clients:
        list(clients.map(lambda _: server.get("/items"), range(4 * REQUESTS)))
