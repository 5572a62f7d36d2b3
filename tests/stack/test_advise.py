"""Advice from a real load, and from a Prometheus whose history was made up to have one answer."""

import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from ops import advice, usage
from ops.checks.machine import fills_in
from ops.facts import Facts
from ops.prometheus import Prometheus
from tests.stack.stack import Stack, docker, poll

STEP = 15
MINUTES = 75
DAYS = 10


def test_a_real_load_is_seen_and_advised_on(stack: Stack) -> None:
    """Four replicas at work, of whose 48 MiB little is left: with half as much again, it is 96."""
    ended = threading.Event()

    def ask() -> None:
        with stack.session() as session:
            while not ended.wait(0.01):
                session.get(stack.url("/items"), timeout=10)

    load = threading.Thread(target=ask)
    load.start()
    try:
        said = stack.run("make", "advise", "SECONDS=2", "API_MEMORY=48m").stdout
    finally:
        ended.set()
        load.join()
    assert "at 4 replicas, memory " in said
    assert " of 48 MiB each; p99 " in said
    assert "hardly any requests" not in said
    assert "of its 48 MiB\n" in said
    assert said.endswith("In .env, then `make deploy`:\n  API_MEMORY=96m\n"), said


@pytest.fixture
def watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stack]:
    """A stack of which nothing but Prometheus runs, and that has seen more than an hour."""
    variables = {"COMPOSE_PROFILES": "metrics", "API_REPLICAS": "4", "API_MEMORY": "128m"}
    stack = Stack("berth-test-advise", variables)
    stack.down()
    for name, value in stack.environment.items():
        monkeypatch.setenv(name, value)
    processors = int(docker("info", "--format={{.NCPU}}"))
    file = tmp_path / "history"
    file.write_text("\n".join([*history(processors), "# EOF\n"]))
    tmp_path.chmod(0o755)
    try:
        stack.run("python3", "-m", "host")
        stack.compose(
            *("run", "--rm", "--no-deps", "--env=TMPDIR=/prometheus", "--entrypoint=promtool"),
            *(f"--volume={file}:/history:ro", "prometheus"),
            *("tsdb", "create-blocks-from", "openmetrics", "/history", "/prometheus"),
        )
        stack.compose("up", "--detach", "--no-deps", "prometheus")
        yield stack
    finally:
        stack.down()


def history(processors: int) -> Iterator[str]:
    """Yield metrics in which 83 % of the processors are busy, and a disk fills within ten days."""
    now = int(time.time())
    steady = {
        "berth:machine_cpu:cores": 0.83 * processors,
        **{f'berth:container_cpu:cores{{service="api",replica="{n}"}}': 0.15 * processors
           for n in range(4)},
        'berth:container_cpu:cores{service="db",replica="d"}': 0.12 * processors,
        'berth:latency:buckets{le="0.025"}': 150,
        'berth:latency:buckets{le="0.05"}': 300,
        'berth:latency:buckets{le="+Inf"}': 300,
        'berth:requests:rate{code="200"}': 290,
        'berth:requests:rate{code="404"}': 10,
        'container_oom_events_total{service="api",replica="1"}': 0,
        'container_restarts_total{service="api",replica="1"}': 0,
        'berth:container_memory:bytes{service="api",replica="1"}': 61 << 20,
        'berth:container_memory:bytes{service="api",replica="2"}': 46 << 20,
        "berth:database_connections:used": 16,
        "berth:database_connections:limit": 100,
    }  # fmt: skip
    for name, value in steady.items():
        for second in range(0, MINUTES * 60, STEP):
            yield f"{name} {value} {now - MINUTES * 60 + second}"
    full = DAYS * 86400
    for second in range(0, MINUTES * 60, STEP):
        at = second - MINUTES * 60
        disk = 'berth:disk:free_bytes{mountpoint="/disks/docker"}'
        yield f"{disk} {1e6 * (full - at)} {now + at}"


def test_a_history_in_prometheus_has_the_answer_that_was_put_in(watched: Stack) -> None:
    """By the very queries that `make advise` and `make doctor` make."""
    facts = Facts.read()
    prometheus = Prometheus.find(facts)
    assert prometheus
    assert watched.containers("prometheus")
    poll("the history", lambda: prometheus.query("berth:machine_cpu:cores"))
    found = usage.history(facts, prometheus)
    cores = "two cores" if found.cores == 2 else f"{found.cores}"
    assert 3500 < found.seconds < 3800
    assert advice.summary(found) == (
        f"api uses 60% of {cores} at 4 replicas, memory 61 of 128 MiB each; p99 50 ms at 300 "
        "requests/s; the database is at 12%, the whole machine at 83%"
    )
    (one,) = advice.advise(found)
    assert one.says.startswith(f"83% of {cores} are busy: ")
    assert one.says.endswith("before more replicas")
    left = fills_in(prometheus, "/disks/docker")
    assert left
    assert timedelta(days=DAYS - 1) < left < timedelta(days=DAYS + 1)
