"""Histories with known answers: what `make advise` says of each, and just beside its thresholds."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from ops.advice import Service, Usage, advise, summary
from ops.facts import Facts, kills
from ops.memory import MIB, Budget
from ops.stack import Container, Stack, State
from ops.usage import mishaps, quantile

API = Service(cores=0.9, memory=61 * MIB, memory_limit=128 * MIB)
DB = Service(cores=0.24, memory=200 * MIB, memory_limit=512 * MIB)
# Two replicas on two cores, an hour of a usual load.
USUAL = Usage(
    seconds=3600,
    is_history=True,
    cores=2,
    busy=1.3,
    replicas=2,
    workers=1,
    budget=Budget(machine=2048 * MIB, replica=128 * MIB, others={"db": 512 * MIB}),
    services={"api": API, "db": DB},
    requests=300,
    p99=0.04,
    connections=10,
    most_connections=97,
)
NOTHING = "nothing to change: 65% is within the 50 to 90 that one aims for"


def usage(
    api: Service = API, database: Service = DB, *, usual: Usage = USUAL, **changes: object
) -> Usage:
    """Return the usual history with some figures changed."""
    return replace(usual, services={"api": api, "db": database}, **changes)  # type: ignore[arg-type]


def said(found: Usage) -> tuple[str, dict[str, str]]:
    """Return the only advice and its settings."""
    (one,) = advise(found)
    return one.says, one.settings


def test_a_usual_load_needs_no_change() -> None:
    """And the summary has the figures."""
    assert said(USUAL) == (NOTHING, {})
    assert summary(USUAL) == (
        "api uses 45% of two cores at 2 replicas, memory 61 of 128 MiB each; "
        "p99 40 ms at 300 requests/s; the database is at 12%, the whole machine at 65%"
    )


def test_uncounted_requests_are_not_made_up() -> None:
    """As in a look at an app that counts none."""
    found = usage(requests=None, p99=None)
    assert "requests" not in summary(found)
    assert said(found) == (NOTHING, {})


def cores(count: float) -> Service:
    """Return replicas that use so many cores."""
    return replace(API, cores=count)


def db(count: float) -> Service:
    """Return a database that uses so many cores."""
    return replace(DB, cores=count)


def memory(most: int, limit: int, killed: int = 0, restarts: int = 0) -> Service:
    """Return a service by its memory in MiB."""
    return Service(0.9, most * MIB, limit * MIB, killed=killed, restarts=restarts)


FOUR_ON_TWO = replace(USUAL, replicas=4)
TWO_ON_FOUR = replace(USUAL, cores=4, busy=2.2)
# What `make up` leaves of 1 GB has room for two replicas and a deploy's, and no more.
SIZED = Budget(
    957 * MIB, 96 * MIB, {"db": 160 * MIB, "traefik": 128 * MIB, "docker-proxy": 64 * MIB}
)
WIDE = Budget(machine=1 << 40, replica=128 * MIB, others={})


BUSY_16 = replace(USUAL, cores=16, busy=9, replicas=8, budget=WIDE)


FULL_AND_NO_ROOM = (
    "each process of api keeps 100% of a core busy, and one can use no more than one of 16 cores; "
    "memory has no room for another"
)


def room(mib: int, replica: int = 128) -> Budget:
    """Return a machine of so much memory, whose replicas may each have so much of it."""
    return Budget(machine=mib * MIB, replica=replica * MIB, others={})


@pytest.mark.parametrize(
    ("found", "says", "settings"),
    [
        # Processors.
        (
            usage(cores(1.3), usual=FOUR_ON_TWO, busy=1.66),
            "83% of two cores are busy: two more",
            "",
        ),
        (usage(busy=1.6), "80% of two cores are busy: two more cores before more replicas", ""),
        (usage(busy=1.59), "nothing to change: 80% is within", ""),
        (usage(cores(0.7), cores=1, busy=0.9), "90% of one core are busy: one more core", ""),
        (usage(cores(3), cores=4, busy=4), "100% of four cores are busy: two more cores", ""),
        (usage(busy=0.5, requests=50), "nothing to change: there is room to grow, 25%", ""),
        (usage(cores(0.3), cores=8, busy=0.9), "11% of eight cores are busy at most: two", ""),
        (usage(cores(0.3), cores=8, busy=0.9, seconds=1799), "nothing to change: there is", ""),
        (usage(cores(0.4), busy=1.5), "nothing to change: of 75%, 32% is this stack", ""),
        (usage(cores(0.4), busy=1.9), "95% of two cores are busy, 1.3 with what is not this", ""),
        (usage(API, db(1.2), busy=1.8), "90% of two cores are busy, 1.2 with the database", ""),
        # Replicas.
        (usage(cores(1.6), usual=TWO_ON_FOUR), "each process of api keeps 80%", "API_REPLICAS=3"),
        (usage(cores(1.59), usual=TWO_ON_FOUR), "nothing to change: 55% is within", ""),
        (
            usage(cores(2), usual=TWO_ON_FOUR, replicas=1, workers=2),
            "each process of api keeps 100% of a core busy, and one can use no more than one of",
            "API_REPLICAS=2",
        ),
        (usage(cores(8), usual=BUSY_16), "each process of api keeps 100%", "API_REPLICAS=12"),
        (
            usage(cores(8), usual=BUSY_16, budget=room(256 + 11 * 128)),
            "each process of api keeps 100%",
            "API_REPLICAS=10",
        ),
        (
            usage(cores(8), usual=BUSY_16, budget=room(256 + 9 * 128)),
            FULL_AND_NO_ROOM,
            "",
        ),
        (
            usage(usual=FOUR_ON_TWO),
            "4 processes take turns on two cores, and each keeps only 22% of one busy",
            "API_REPLICAS=2",
        ),
        (usage(usual=FOUR_ON_TWO, seconds=1799), "nothing to change: 65% is within", ""),
        (usage(cores(1.5), usual=FOUR_ON_TWO, busy=1.58), "nothing to change: 79% is within", ""),
        (usage(cores=1, busy=0.7), "nothing to change: 70% is within", ""),
        # Memory.
        (usage(memory(108, 128)), "nothing to change", ""),
        (usage(memory(109, 128)), "api had 109 of its 128 MiB", "API_MEMORY=192m"),
        (usage(memory(85, 512)), "a replica had no more than 85 of its 512", "API_MEMORY=128m"),
        (usage(memory(86, 256)), "nothing to change", ""),
        (usage(memory(85, 512), seconds=1799), "nothing to change", ""),
        (usage(memory(60, 128, 2)), "api ran out of its 128 MiB 2 times", "API_MEMORY=192m"),
        (usage(API, memory(200, 512, 1)), "db ran out of its 512 MiB once", "DB_MEMORY=768m"),
        (usage(API, memory(500, 512)), "db had 500 of its 512 MiB", "DB_MEMORY=768m"),
        (usage(API, memory(500, 512), is_history=False), "nothing to change", ""),
        (
            usage(API, memory(150, 160), budget=SIZED),
            "db had 150 of its 160 MiB, and the machine has no room for more",
            "",
        ),
        (
            usage(memory(500, 512), budget=room(256 + 3 * 768, 512)),
            "api had 500 of its 512 MiB",
            "API_MEMORY=768m",
        ),
        (
            usage(memory(500, 512), usual=TWO_ON_FOUR, replicas=4, budget=room(256 + 5 * 512, 512)),
            "api had 500 of its 512 MiB; with more, 2 replicas and a deploy's fit this machine",
            "API_MEMORY=768m API_REPLICAS=2",
        ),
        (
            usage(memory(500, 512), budget=room(256 + 3 * 512, 512)),
            "api had 500 of its 512 MiB, and the machine has no room for more",
            "",
        ),
        # What else there is.
        (usage(memory(61, 128, 0, 3)), "api came back 3 times for another reason", ""),
        (usage(memory(61, 128, 1, 1)), "api ran out of its 128 MiB once", "API_MEMORY=192m"),
        (usage(connections=78), "the database had 78 of 97 connections open", ""),
        (usage(connections=77), "nothing to change", ""),
        (usage(replace(API, core_limit=0.5)), "api used 0.9 of the 1.0 cores", "API_CPUS=0"),
        (usage(replace(API, core_limit=0.51)), "nothing to change", ""),
        (usage(API, replace(DB, core_limit=0.25)), "db used 0.2 of the 0.2", "DB_CPUS=0"),
        (usage(busy=0.9, p99=1.0), "p99 is 1.0 s while 45% of the processors are busy", ""),
        (usage(busy=0.9, p99=0.99), "nothing to change", ""),
        (usage(busy=1.2, p99=2), "nothing to change", ""),
        # Too little to say anything.
        (usage(seconds=599, busy=2), "watched for 10 minutes only: ask again in 1", ""),
        (usage(seconds=60, busy=2), "watched for 1 minutes only: ask again in 9", ""),
        (usage(requests=0.9, busy=2), "hardly any requests in 60 minutes: ask again", ""),
        (usage(seconds=30, is_history=False, requests=0), "hardly any requests in 30 s", ""),
        (usage(cores(0.01), requests=None, p99=None), "hardly any requests", ""),
    ],
)
def test_each_history_has_one_answer(found: Usage, says: str, settings: str) -> None:
    """With the figure, and the lines of .env."""
    (one,) = advise(found)
    assert one.says.startswith(says)
    assert " ".join(f"{name}={value}" for name, value in one.settings.items()) == settings


def test_memory_that_runs_out_is_named_however_little_else_is_known() -> None:
    """A minute of history is too short for everything else."""
    near, short = advise(usage(memory(109, 128), seconds=60))
    assert near.settings == {"API_MEMORY": "192m"}
    assert "ask again" in short.says


def test_more_replicas_fit_with_the_memory_that_is_recommended() -> None:
    """Not with what they have now: at 192 MiB each, only three and a deploy's do."""
    found = usage(
        memory(109, 128),
        usual=TWO_ON_FOUR,
        cores=8,
        busy=4.4,
        replicas=2,
        budget=Budget(machine=1024 * MIB + 256 * MIB, replica=128 * MIB, others={"db": 200 * MIB}),
    )
    found = replace(found, services={**found.services, "api": replace(found.api, cores=2)})
    assert [one.settings for one in advise(found)] == [
        {"API_MEMORY": "192m"},
        {"API_REPLICAS": "3"},
    ]


@pytest.mark.parametrize(
    ("answers", "seconds"),
    [
        ({"0.1": 0.0, "0.5": 100.0, "+Inf": 100.0}, 0.496),
        ({"0.1": 99.0, "0.5": 100.0, "+Inf": 100.0}, 0.1),
        ({"0.1": 50.0, "+Inf": 100.0}, 0.1),
        ({"0.1": 0.0, "+Inf": 0.0}, None),
        ({}, None),
    ],
)
def test_the_99th_percentile_is_read_from_buckets(
    answers: dict[str, float], seconds: float | None
) -> None:
    """As Prometheus does: evenly within a bucket, and no further than the last bound."""
    found = quantile(answers, 0.99)
    assert found == (seconds if seconds is None else pytest.approx(seconds))


NOW = datetime(2026, 11, 22, tzinfo=UTC)
LATELY, LONG_AGO = NOW - timedelta(minutes=9), NOW - timedelta(minutes=11)
RUNS = Container(
    id="a" * 64, name="berth-api-1", service="api", number=1, image="", config_hash="",
    state=State.HEALTHY, exit_code=0, restarts=0, started=LONG_AGO, out_of_memory=False,
    complaint="",
)  # fmt: skip


@pytest.mark.parametrize(
    ("container", "events", "killed", "restarts"),
    [
        (RUNS, "", 0, 0),
        # Docker counts restarts from a container's making on, and does not say when they were.
        (replace(RUNS, restarts=30, started=LATELY), "", 0, 1),
        (replace(RUNS, restarts=30), "", 0, 0),
        (replace(RUNS, started=LATELY), "", 0, 0),
        # Its note of a kill stays until the next start.
        (replace(RUNS, out_of_memory=True), "", 0, 0),
        (replace(RUNS, out_of_memory=True, started=LATELY), "", 1, 0),
        (replace(RUNS, out_of_memory=True, state=State.CRASHING), "", 1, 0),
        (replace(RUNS, restarts=30, started=LATELY), RUNS.id, 1, 1),
        (RUNS, "b" * 64, 0, 0),
    ],
)
def test_what_happened_long_ago_is_not_counted_again(
    container: Container, events: str, killed: int, restarts: int
) -> None:
    """A look takes the last ten minutes, whenever it is taken."""
    facts = Facts(Stack("berth", {}, {}), [container], {}, NOW, events)
    assert mishaps(facts) == {"api": {"killed": killed, "restarts": restarts}}


def test_the_kernels_log_is_read_from_a_moment_on() -> None:
    """It keeps kills since the machine's start; one without a time may be any of them."""
    kill = "oom-kill:constraint=CONSTRAINT_MEMCG,task_memcg=/docker/{}"
    log = "\n".join(
        [
            f"[ 1399.999999] {kill.format('old')}",
            f"[ 1400.000001] {kill.format('new')}",
            f"[ 1401.000000][  T123] {kill.format('named')}",
            "[ 1402.000000] Memory cgroup out of memory: Killed process 1 (other)",
            kill.format("undated"),
        ]
    )
    found = kills(log, since=1400)
    assert [one for one in ("old", "new", "named", "other", "undated") if one in found] == [
        "new",
        "named",
    ]
