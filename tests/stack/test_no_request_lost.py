"""Whatever happens to replicas, the proxy or the database, under a steady load of GET and POST."""

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ops import standby
from tests.stack import events, report
from tests.stack.events import Event, all_answer, harm, restart_database, settle
from tests.stack.load import Load, assert_stored_once, http2_load, steady_load
from tests.stack.stack import Stack, docker, image, running_with_ca
from tests.stack.steps import KILLED, before

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
        overlays=["faults", "young"],
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


@pytest.fixture
def settings(stack: Stack) -> Iterator[None]:
    """Variables that the test may set."""
    before = dict(stack.environment)
    yield
    stack.environment = before


@pytest.fixture
def version() -> Iterator[str]:
    """Another version of Traefik: the same under another name."""
    name = "berth-test-traefik:v3.99"
    docker("tag", image("traefik"), name)
    yield name
    docker("rmi", name)


@pytest.mark.usefixtures("settings")
@pytest.mark.parametrize("variable", ["CLIENT_IN_FLIGHT", "TRAEFIK_IMAGE", "TRAEFIK_MEMORY"])
def test_replacing_traefik_loses_no_request(stack: Stack, variable: str, version: str) -> None:
    """Neither over HTTP/1.1 nor over HTTP/2; and nobody orders a certificate for it."""
    values = {"CLIENT_IN_FLIGHT": "90000", "TRAEFIK_IMAGE": version, "TRAEFIK_MEMORY": "300m"}
    serial, store = stack.certificate().serial_number, certificates(stack)
    became: list[str] = []

    def event(stack: Stack, mark: Callable[[], None]) -> None:
        with http2_load(stack, became):
            events.replace_traefik(**{variable: values[variable]})(stack, mark)
            settle()

    load = under_load(stack, f"another {variable} with `make up`", event, scale=2)
    assert load.why() == {}
    assert {line for line in became if line != "200 2"} == set()
    assert len(became) > 200
    assert stack.certificate().serial_number == serial
    assert certificates(stack) == store
    assert left_of_a_replacement(stack) == ""


def certificates(stack: Stack) -> str:
    """Return all that Traefik has stored."""
    return docker("exec", *stack.healthy("traefik"), "cat", "/certificates/acme.json")


def left_of_a_replacement(stack: Stack) -> str:
    """Return what of a second Traefik is still there."""
    names = (f"--filter=name={stack.project}{one}" for one in ("-traefik-standby", "_standby"))
    container, volume = names
    there = docker("ps", "--all", "--quiet", container) + docker("volume", "ls", "-q", volume)
    chain = standby.chain(stack.project)
    return there + "".join(line for line in host_rules().splitlines() if chain in line)


def host_rules() -> str:
    """Return the machine's rules of address translation."""
    root = ("--network=host", "--privileged", "--volume=/:/host", "--entrypoint=chroot")
    return docker("run", "--rm", *root, image("postgres"), "/host", "iptables", "-t", "nat", "-S")


@pytest.mark.usefixtures("settings")
def test_traefik_that_does_not_start_leaves_the_old_one_serving(stack: Stack) -> None:
    """A sentence says so, with its last words."""

    def event(stack: Stack, mark: Callable[[], None]) -> None:
        old = stack.healthy("traefik")
        mark()
        stack.environment["TRAEFIK_IMAGE"] = image("haproxy")
        done = stack.run("make", "up", check=False)
        assert done.returncode != 0
        assert "the new Traefik does not start, its last words:" in done.stderr
        assert "\nThe old Traefik goes on serving; " in done.stderr
        assert stack.healthy("traefik") == old

    load = under_load(stack, "a Traefik that does not start", event, scale=2)
    assert load.why() == {}
    assert left_of_a_replacement(stack) == ""


@pytest.mark.usefixtures("settings")
@pytest.mark.parametrize("step", ["start", "end"])
def test_replacement_that_is_killed_is_ended_by_the_next(
    stack: Stack, tmp_path: Path, step: str
) -> None:
    """The second Traefik serves meanwhile, though the first be gone; the doctor knows of it."""

    def event(stack: Stack, mark: Callable[[], None]) -> None:
        mark()
        stack.environment["CLIENT_IN_FLIGHT"] = "80000"
        shim = before([step], KILLED, tmp_path)["PATH"]
        assert stack.run("env", f"PATH={shim}", "make", "up", check=False).returncode != 0
        assert "Traefik was broken off" in stack.doctor()["settings"]["says"]
        if step == "start":
            stack.compose("rm", "--stop", "--force", "traefik")
        stack.run("make", "up")

    load = under_load(stack, f"`make up` killed at {step}", event, scale=2)
    assert load.why() == {}
    assert left_of_a_replacement(stack) == ""


def test_traefik_that_crashes_is_soon_back(stack: Stack) -> None:
    """Its port is closed meanwhile, which no client can be spared; nothing else fails."""
    load = under_load(stack, "SIGKILL of Traefik", events.crash_traefik)
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
