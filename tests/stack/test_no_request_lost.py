"""Whatever happens to replicas, the proxy or the database, under a steady load of GET and POST."""

import os
import time
from collections.abc import Iterator

import pytest

from tests.stack import events, report
from tests.stack.events import Event, all_answer, harm, restart_database, settle
from tests.stack.load import Load, assert_stored_once, steady_load
from tests.stack.stack import Stack, docker, running_with_ca

# How many POSTs a replica may have in hand when it is harmed: nobody else may repeat those. It is
# sent 15 a second, and may stand still for a while before it dies.
IN_FLIGHT = 30
# Two are promised; the rest is for a busy machine.
OUT_OF_BALANCE_SECONDS = 3


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Four replicas that can be harmed from inside."""
    scratch = tmp_path_factory.mktemp("chaos")
    with running_with_ca(
        "berth-test-chaos",
        scratch,
        scale=4,
        overlays=["faults"],
        RESPONSE_SECONDS=str(events.RESPONSE_SECONDS),
    ) as stack:
        yield stack


def under_load(stack: Stack, name: str, event: Event, *, scale: int = 4) -> Load:
    """Have an event happen to a whole stack under load; the database must tell the same story."""
    stack.up(scale=scale)
    all_answer(stack, scale)
    with steady_load(stack) as load:
        try:
            event(stack, load.mark)
            settle()
        finally:
            print(load.why())
    report.record(name, "Berth", load)
    assert_stored_once(stack, load)
    return load


def test_scaling_up_and_down_loses_no_request(stack: Stack) -> None:
    """From two to six and back to two."""
    assert under_load(stack, "scale 2 → 6 → 2", events.scaling, scale=2).why() == {}


def test_replicas_that_start_anew_lose_no_request(stack: Stack) -> None:
    """One after the other, after so many requests."""
    stack.environment["RECYCLE_REQUESTS"] = "500"
    try:
        load = under_load(stack, "both replicas start anew", events.recycling, scale=2)
    finally:
        del stack.environment["RECYCLE_REQUESTS"]
    assert load.why() == {}


@pytest.mark.parametrize(
    ("name", "how"),
    [
        ("SIGKILL of a replica", "kill -KILL -- -1"),
        ("exit from inside", "/exit"),
        ("out of memory", "/memory"),
    ],
)
def test_crash_loses_only_what_was_in_flight(stack: Stack, name: str, how: str) -> None:
    """GETs are repeated elsewhere; a POST that was under way is not acknowledged."""
    load = under_load(stack, name, harm(how))
    assert load.lost("GET") == []
    assert len(load.lost("POST")) <= IN_FLIGHT


@pytest.mark.parametrize(
    ("name", "how"),
    [
        ("SIGSTOP of a replica", "kill -STOP -- -1"),
        ("a blocked loop", "/block"),
        ("a held GIL", "/hold-gil"),
    ],
)
def test_hung_replica_is_left_out_then_killed(stack: Stack, name: str, how: str) -> None:
    """Out of the balance within 2 s, back within 30; its GETs are answered by others."""
    start = time.monotonic()
    load = under_load(stack, name, harm(how))
    assert load.lost("GET") == []
    hung = [o for o in load.outcomes if o.seconds > 0.9 * events.RESPONSE_SECONDS]
    late = [o for o in hung if o.at - load.marks[0] > OUT_OF_BALANCE_SECONDS]
    assert late == []
    assert len(load.lost("POST")) <= len(hung)
    if how.startswith("/"):
        since = f"--since={time.monotonic() - start:.0f}s"
        log = "".join(docker("logs", since, one["Id"]) for one in stack.containers("api"))
        assert "Fatal Python error: Aborted" in log
        assert "faults.py" in log


def test_replica_cut_off_from_the_network_loses_only_what_was_in_flight(stack: Stack) -> None:
    """What it had begun is repeated when no answer came in RESPONSE_SECONDS."""
    load = under_load(stack, "a replica cut off from the network", events.cut_off)
    assert load.lost("GET") == []
    assert len(load.lost("POST")) <= IN_FLIGHT


@pytest.mark.parametrize(
    ("name", "signal"), [("smart", "TERM"), ("fast", "INT"), ("kill -9", "KILL")]
)
def test_restarted_database_loses_nothing_acknowledged(
    stack: Stack, name: str, signal: str
) -> None:
    """While it is away: 503 that says when to come back, never a 500, never a hang."""
    load = under_load(stack, f"restart of PostgreSQL ({name})", restart_database(signal))
    assert all(outcome.refused for outcome in load.outcomes if outcome.lost), load.why()
    # The app gives up after 1.8 s; the rest is for a busy machine to get the answer out.
    assert load.slowest < 5


def test_replaced_traefik_is_soon_back(stack: Stack) -> None:
    """Its port is closed meanwhile, which no client can be spared; nothing else fails."""
    load = under_load(stack, "replacement of Traefik", events.replace_traefik)
    assert load.recovery < 10


@pytest.mark.skipif(not events.engine_is_ours(), reason="the engine runs what is not the tests'")
def test_restarted_engine_is_soon_back(stack: Stack) -> None:
    """Every container stops and starts with it; nothing that was acknowledged is lost."""
    before = {replica["Id"] for replica in stack.containers("api")}
    load = under_load(stack, "restart of the engine", events.restart_engine)
    assert load.recovery < 90
    assert {replica["Id"] for replica in stack.containers("api")} == before


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The same as most Compose files have it."""
    scratch = tmp_path_factory.mktemp("plain")
    (scratch / "empty").mkdir()
    with running_with_ca(
        "berth-test-plain",
        scratch,
        scale=4,
        overlays=["faults", "plain"],
        EMPTY_FOLDER=str(scratch / "empty"),
    ) as stack:
        yield stack


@pytest.mark.skipif("PLAIN" not in os.environ, reason="a comparison, not a promise: `make chaos`")
@pytest.mark.parametrize(
    ("name", "event", "scale"),
    [
        ("scale 2 → 6 → 2", events.scaling, 2),
        ("SIGKILL of a replica", harm("kill -KILL -- -1"), 4),
        ("exit from inside", harm("/exit"), 4),
        ("out of memory", harm("/memory"), 4),
        ("SIGSTOP of a replica", harm("kill -STOP -- -1"), 4),
        ("a replica cut off from the network", events.cut_off, 4),
        ("all four replicas replaced", events.replace_all, 4),
    ],
)
def test_plain_compose_for_comparison(plain: Stack, name: str, event: Event, scale: int) -> None:
    """The same events without drain, checks and retry: measured, not judged."""
    plain.compose("up", "--detach", "--force-recreate", "--wait", f"--scale=api={scale}", "api")
    all_answer(plain, scale)
    with steady_load(plain) as load:
        try:
            event(plain, load.mark)
        except AssertionError:
            settle(0)  # it never healed, which is a result too
        settle()
    report.record(name, "plain Compose", load)
