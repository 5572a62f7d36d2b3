import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest
import requests

from berth.metrics import RECENT_SECONDS, Metrics
from berth.settings import load_settings
from tests.berth.programs import Environment, Server, eventually

COUNT = "http_server_request_duration_seconds_count"
WORKERS = 3


@pytest.fixture(scope="module")
def server(migrated: Environment, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    log = tmp_path_factory.mktemp("metrics") / "log"
    with Server(migrated, log, "tests.faults") as server:
        yield server.ready()


def series(method: str, route: str, status: int) -> str:
    labels = f'http_request_method="{method}",http_response_status_code="{status}"'
    return f'{COUNT}{{{labels},http_route="{route}"}}'


def counted(server: Server) -> dict[str, float]:
    return {name: value for name, value in server.metrics().items() if name.startswith(COUNT)}


def test_requests_are_counted_by_route_method_and_status(server: Server) -> None:
    """Each of them once, under its template; what no route knows is one series, health none."""
    before = counted(server)
    created = server.post("/items", {"name": "counted"}).json()["id"]
    for _ in range(5):
        server.get(f"/items/{created}")
    server.get(f"/items/{uuid4()}")
    server.get("/items/no-uuid")
    for path in ("/nowhere", "/.env", f"/items/{created}/more", "/livez", "/readyz"):
        server.get(path)
    server.post("/bug", "text")
    wanted = {
        series("POST", "/items", 201): 1,
        series("GET", "/items/{item_id}", 200): 5,
        series("GET", "/items/{item_id}", 404): 1,
        series("GET", "/items/{item_id}", 422): 1,
        series("GET", "unmatched", 404): 3,
        series("POST", "/bug", 500): 1,
    }
    # An answer is counted when all of it is sent, and its logs are written.
    eventually(
        lambda: (
            {name: value - before.get(name, 0) for name, value in counted(server).items()} == wanted
        ),
        f"{wanted}",
    )


def test_nothing_that_a_client_makes_up_becomes_a_label(server: Server) -> None:
    """However many methods and paths it thinks of."""
    server.get("/items")
    for number in range(3):
        for method in ("PROPFIND", "TRACE", "BREW"):
            ask(server, method, f"/made-up-{number}?token=secret")
    eventually(lambda: counted(server).get(series("_OTHER", "unmatched", 404)) == 6, "six others")
    made_up = ("made-up", "secret", "BREW", "TRACE", "PROPFIND")
    assert not [name for name in server.metrics() if any(one in name for one in made_up)]


def test_durations_land_in_their_buckets(server: Server) -> None:
    """0.3 s is more than 0.25 and less than 0.5."""
    server.get("/sleep/0.3")
    eventually(lambda: series("GET", "/sleep/{seconds}", 200) in counted(server), "counted")
    labels = (
        'http_request_method="GET",http_response_status_code="200",http_route="/sleep/{seconds}"'
    )
    samples = server.metrics()
    name = "http_server_request_duration_seconds"
    assert samples[f'{name}_bucket{{{labels},le="0.25"}}'] == 0
    assert samples[f"{name}_sum{{{labels}}}"] >= 0.3


def test_process_and_version_are_told(server: Server) -> None:
    samples = server.metrics()
    assert samples["http_server_processes"] == 1
    assert [name for name in samples if name.startswith('app_info{replica="')]
    assert samples["process_resident_memory_bytes"] > 10 * 2**20


def test_requests_in_hand_are_told_while_the_loop_is_free(server: Server) -> None:
    asking = threading.Thread(target=server.get, args=["/sleep/2.5"])
    asking.start()
    eventually(lambda: server.metrics()["http_server_active_requests"] == 1, "one active request")
    asking.join()
    eventually(lambda: server.metrics()["http_server_active_requests"] == 0, "none")


def test_failures_of_the_last_minutes_are_told(migrated: Environment, log: Path) -> None:
    """By all processes together, to whoever has no Prometheus that remembers."""
    with Server(migrated, log, "tests.faults", API_WORKERS="2") as server:
        server.ready()
        for number in range(10):
            server.post("/bug", "text") if number < 7 else server.get("/items")

        def told() -> list[float | None]:
            found = server.metrics()
            return [found.get(f"http_server_recent_{name}") for name in ("requests", "failures")]

        eventually(lambda: told() == [10, 7], "ten requests, seven of which failed")


def test_what_was_long_ago_is_not_recent() -> None:
    metrics = Metrics(load_settings({}))
    scope = {"method": "GET"}
    for second in range(RECENT_SECONDS + 1):
        metrics.observe(scope, 200 if second else 500, 0.1)
        metrics.sample()
    read = metrics.exposed.get_sample_value
    assert read("http_server_recent_failures") == 0
    assert read("http_server_recent_requests") == RECENT_SECONDS


def test_a_blocked_event_loop_still_gives_metrics(migrated: Environment, log: Path) -> None:
    """They come from a thread."""
    with Server(migrated, log, "tests.faults") as server:
        server.ready()
        server.get("/items")
        threading.Thread(target=ask, args=[server, "GET", "/block"]).start()
        eventually(lambda: not ask(server, "GET", "/livez"), "a blocked loop")
        assert counted(server) == {series("GET", "/items", 200): 1}  # not yet that which blocks


def test_workers_are_added_up(migrated: Environment, log: Path) -> None:
    """What a dead one counted stays, what it held goes with it."""
    with Server(migrated, log, "tests.faults", API_WORKERS=str(WORKERS)) as server:
        server.ready()

        def processes() -> float:
            return server.metrics().get("http_server_processes", 0)

        eventually(lambda: processes() == WORKERS, "all workers")
        workers: set[int] = set()
        sent = 0
        while len(workers) < WORKERS:  # a fresh connection each, which the kernel deals out
            workers.add(int(server.get("/busy/0").text))
            sent += 1
        busy = series("GET", "/busy/{seconds}", 200)
        eventually(lambda: server.metrics()[busy] == sent, "all of them counted")
        time.sleep(1)  # what dies younger would end the container
        os.kill(workers.pop(), signal.SIGKILL)
        eventually(lambda: "starting another" in server.output(), "another worker")
        eventually(lambda: processes() == WORKERS, "as many processes as before")
        assert server.metrics()[busy] == sent


def ask(server: Server, method: str, path: str) -> bool:
    """Whether there is an answer, of whatever kind, within a second."""
    try:
        requests.request(method, server.url + path, timeout=1)
    except requests.RequestException:
        return False
    return True
