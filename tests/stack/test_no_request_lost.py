"""Whatever happens to replicas, the proxy or the database, under a steady load of GET and POST."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.stack.load import Load, steady_load
from tests.stack.report import record
from tests.stack.stack import Stack, docker, poll, running_with_ca

# From the moment that a replica is harmed: seconds until it is whole again.
HEALED = 30
# What one replica had in hand when it was harmed: POSTs that nobody else may repeat.
IN_FLIGHT = 8
RESPONSE_SECONDS = 10


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Four replicas that can be harmed from inside."""
    scratch = tmp_path_factory.mktemp("chaos")
    with running_with_ca(
        "berth-test-chaos",
        scratch,
        scale=4,
        overlays=["faults"],
        RESPONSE_SECONDS=str(RESPONSE_SECONDS),
    ) as stack:
        yield stack


@pytest.fixture(autouse=True)
def whole(stack: Stack) -> None:
    """Every event begins with four healthy replicas that are all routed to."""
    stack.up(scale=4)
    all_answer(stack, 4)


def all_answer(stack: Stack, count: int) -> None:
    """Wait until so many replicas answer through the proxy."""

    def counted() -> bool:
        with stack.session() as session:
            answers = [session.get(stack.url("/version"), timeout=10) for _ in range(count * 3)]
        return len({a.json()["replica"] for a in answers if a.ok}) == count

    poll(f"{count} replicas answering", counted, seconds=60)


def settle(seconds: float = 2) -> None:
    """Let the load go on: what an event costs may come late."""
    time.sleep(seconds)


@contextmanager
def under_load(stack: Stack, event: str) -> Iterator[Load]:
    """Have an event happen under load; then check that the database tells the same story."""
    with steady_load(stack) as load:
        load.mark()
        yield load
        settle()
    record(event, load)
    rows = stored(stack)
    missing = load.acknowledged.items() - rows.items()
    assert not missing, f"acknowledged and lost: {missing}"
    mine = {name for name in rows if name.split("-")[1] == next(iter(load.sent)).split("-")[1]}
    assert mine <= load.sent, f"stored and never sent: {mine - load.sent}"


def stored(stack: Stack) -> dict[str, str]:
    """Return the id of every row by its name; a name that is there twice fails."""
    table = stack.compose(
        "exec", "-T", "--user=postgres", "db", "psql", "--dbname=berth", "--tuples-only",
        "--no-align", "--command=SELECT json_agg(json_build_array(name, id)) FROM items",
    )
    pairs = json.loads(table)
    rows = dict(pairs)
    assert len(rows) == len(pairs), "a POST was carried out twice"
    return rows


def harm(stack: Stack, path: str) -> str:
    """Ask one replica, from inside, for one of its faults; returns its id."""
    victim = stack.healthy()[0]
    stack.inside(
        victim,
        f"exec 3<>/dev/tcp/127.0.0.1/8000; printf 'GET {path} HTTP/1.0\\r\\n\\r\\n' >&3",
    )
    return victim


def restarts(container: str) -> int:
    """Return how often the restart policy has brought a container back."""
    return int(docker("inspect", "--format={{.RestartCount}}", container))


def await_healed(stack: Stack, victim: str, before: int) -> None:
    """Wait until the policy has restarted a replica and it is healthy again."""
    poll(
        "the harmed replica",
        lambda: restarts(victim) > before and victim in stack.healthy(),
        seconds=HEALED,
    )


def test_scaling_up_and_down_loses_no_request(stack: Stack) -> None:
    """From two to six and back to two."""
    stack.up(scale=2)
    all_answer(stack, 2)
    with under_load(stack, "scale 2 → 6 → 2") as load:
        stack.up(scale=6)
        settle()
        stack.up(scale=2)
    assert load.why() == {}


@pytest.mark.parametrize(
    ("event", "how"),
    [
        ("SIGKILL of a replica", "kill"),
        ("exit from inside", "/faults/exit"),
        ("out of memory", "/faults/memory"),
    ],
)
def test_crash_loses_only_what_was_in_flight(stack: Stack, event: str, how: str) -> None:
    """GETs are repeated elsewhere; a POST that was under way is not acknowledged."""
    victim = stack.healthy()[0]
    before = restarts(victim)
    with under_load(stack, event) as load:
        if how == "kill":
            stack.inside(victim, "kill -KILL -- -1 || true")
        else:
            harm(stack, how)
        await_healed(stack, victim, before)
    assert load.lost("GET") == []
    assert len(load.lost("POST")) <= IN_FLIGHT


@pytest.mark.parametrize(
    ("event", "how"),
    [
        ("SIGSTOP of a replica", "stop"),
        ("a blocked loop", "/faults/block"),
        ("a held GIL", "/faults/hold-gil"),
    ],
)
def test_hung_replica_is_left_out_then_killed(stack: Stack, event: str, how: str) -> None:
    """Out of the balance within 2 s, back within 30; its GETs are answered by others."""
    victim = stack.healthy()[0]
    before = restarts(victim)
    start = time.monotonic()
    with under_load(stack, event) as load:
        if how == "stop":
            stack.inside(victim, "kill -STOP -- -1")
        else:
            harm(stack, how)
        await_healed(stack, victim, before)
    assert load.lost("GET") == []
    hung = [o for o in load.outcomes if o.seconds > 2]
    assert all(o.at - load.marks[0] < 2 for o in hung), "routed to it for longer than 2 s"
    assert len(load.lost("POST")) <= len(hung)
    if how != "stop":
        log = docker("logs", f"--since={time.monotonic() - start + 1:.0f}s", victim)
        assert "Fatal Python error: Aborted" in log
        assert "faults.py" in log


def test_replica_cut_off_from_the_network_loses_only_what_was_in_flight(stack: Stack) -> None:
    """Its packets go nowhere: not even a refusal comes back."""
    victim = stack.healthy()[0]
    network = f"{stack.project}_edge"
    with under_load(stack, "a replica cut off from the network") as load:
        docker("network", "disconnect", network, victim)
        settle(RESPONSE_SECONDS + 2)
    docker("rm", "--force", victim)
    assert load.lost("GET") == []
    assert len(load.lost("POST")) <= IN_FLIGHT


@pytest.mark.parametrize("mode", ["smart", "fast", "kill"])
def test_restarted_database_loses_nothing_acknowledged(stack: Stack, mode: str) -> None:
    """While it is away: 503 that says when to come back, never a 500, never a hang."""
    (db,) = stack.healthy("db")
    with under_load(stack, f"restart of PostgreSQL ({mode})") as load:
        if mode == "kill":
            stack.inside(db, "kill -KILL $(ls /proc | grep -E '^[0-9]+$' | grep -v \"^$$\\$\") || true")
        else:
            signal = {"smart": "TERM", "fast": "INT"}[mode]
            stack.inside(db, f"kill -{signal} 1")
            if mode == "smart":
                # It waits for its clients, who do not leave: that is what smart means.
                settle(1)
                stack.inside(db, "kill -INT 1")
        poll("the database", lambda: stack.healthy("db"), seconds=60)
        settle(3)
    lost = [o for o in load.outcomes if o.lost]
    assert all(o.refused for o in lost), load.why()
    assert load.slowest < 2.5
