"""PostgreSQL on three machines: any one may be lost, and no acknowledged write with it."""

import contextlib
import json
import time
from collections.abc import Iterator
from typing import cast

import pytest

from tests.stack.load import Load
from tests.stack.stack import docker, poll
from tests.swarm import patroni
from tests.swarm.events import (
    kill_machine,
    lead_away,
    restart_each,
    revive_machine,
    under_load,
)
from tests.swarm.machines import running
from tests.swarm.patroni import PATRONICTL, Members
from tests.swarm.swarm import Swarm

# From a failure until the last request that did not get what it asked for.
AWAY_SECONDS = 30
WHOLE_SECONDS = 120
# What a client on a machine that is cut off would get there.
_POSTS = """
import json, time, urllib.request
end = time.monotonic() + 40
while (now := time.monotonic()) < end:
    request = urllib.request.Request("http://127.0.0.1:8000/items",
        json.dumps({"name": f"minority-{now}"}).encode(), {"Content-Type": "application/json"})
    try:
        print(urllib.request.urlopen(request, timeout=5).status)
    except OSError as error:
        print(error)
    time.sleep(0.2)
"""


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Swarm]:
    """The example and its database on three machines; a test leaves all of it whole."""
    with (
        running("berth-test-members") as machines,
        patroni.deployed(machines, tmp_path_factory.mktemp("members")) as swarm,
    ):
        yield swarm


@pytest.fixture
def members(three: Swarm) -> Members:
    """Its members, all there."""
    found = cast("Members", three.database)
    poll("three members", found.is_whole, seconds=WHOLE_SECONDS)
    return found


def away(load: Load) -> float:
    """Return the seconds from the event to the end of the last 503."""
    refused = [one.at + one.seconds for one in load.outcomes if one.refused]
    return max(refused, default=load.marks[0]) - load.marks[0]


def doctor(three: Swarm) -> str:
    """Return what the doctor says of the database."""
    found = json.loads(three.stack.run("make", "swarm-doctor", "JSON=1", check=False).stdout)
    return next(str(one["says"]) for one in found if one["check"] == "database")


def lose(three: Swarm, members: Members, name: str, number: int) -> Load:
    """Have a machine die under load, and come back."""
    three.by(number % 3 + 1)
    try:
        load = under_load(three, name, kill_machine(three, number))
        # Patroni takes it for lost as soon as it would take a primary for lost.
        poll("its loss", lambda: f"postgres{number} is missing" in doctor(three))
    finally:
        revive_machine(three, number)
        three.by(1)
    poll("three members", members.is_whole, seconds=WHOLE_SECONDS)
    three.assert_stored(load)
    return load


def test_doctor_knows_the_members(three: Swarm, members: Members) -> None:
    """Whoever asks."""
    assert members.is_whole()
    said = doctor(three)
    assert "sync_standby" in said
    assert "leader" in said


def test_machine_without_the_primary_dies(three: Swarm, members: Members) -> None:
    """The other two go on: whoever asks them gets an answer."""
    load = lose(three, members, "the other standby's machine dies", members.machine("Replica"))
    assert away(load) == 0


def test_machine_of_the_primary_dies(three: Swarm, members: Members) -> None:
    """The synchronous standby takes its place."""
    load = lose(three, members, "the primary's machine dies", members.machine("Leader"))
    assert 0 < away(load) < AWAY_SECONDS


def test_machine_of_the_synchronous_standby_dies(three: Swarm, members: Members) -> None:
    """Writes wait until the other one is chosen."""
    number = members.machine("Sync Standby")
    load = lose(three, members, "the synchronous standby's machine dies", number)
    assert away(load) < AWAY_SECONDS


def test_machine_that_is_cut_off_acknowledges_nothing(three: Swarm, members: Members) -> None:
    """With the primary on it; the others choose another one, which it follows once it is back."""
    machines = three.machines
    number = members.machine("Leader")
    label = f"--filter=label=com.docker.swarm.service.name={three.stack.project}_api"
    minority: list[str] = []

    def event(load: Load) -> None:
        replica = machines.docker(number, "ps", "--quiet", label).split()[0]
        load.mark()
        machines.cut_off(number)
        lead_away(three, number)
        said = machines.docker(number, "exec", replica, "python", "-c", _POSTS)
        minority.extend(said.splitlines())

    three.by(number % 3 + 1)
    try:
        load = under_load(three, "the primary's machine is cut off", event)
    finally:
        machines.reconnect(number)
        revive_machine(three, number)
        three.by(1)
    poll("three members", members.is_whole, seconds=WHOLE_SECONDS)
    three.assert_stored(load)
    assert len(minority) > 5
    assert "201" not in minority
    assert away(load) < AWAY_SECONDS


def test_each_machine_is_restarted_in_turn(three: Swarm, members: Members) -> None:
    """As with a database elsewhere, after a switchover, which a few requests see."""

    def move_primary(number: int) -> None:
        poll("three members", members.is_whole, seconds=WHOLE_SECONDS)
        if members.machine("Leader") == number:
            to = f"--candidate=postgres{members.machine('Sync Standby')}"
            members.run(f"postgres{number}", *PATRONICTL, "switchover", to, "--force")
            poll("three members", members.is_whole, seconds=WHOLE_SECONDS)

    name = "each drained and restarted after a switchover"
    load = under_load(three, name, restart_each(three, move_primary))
    poll("three members", members.is_whole, seconds=WHOLE_SECONDS)
    assert [one for one in load.outcomes if one.lost and not one.refused] == []
    assert away(load) < WHOLE_SECONDS * 3


def test_members_are_replaced_one_after_another(three: Swarm, members: Members) -> None:
    """The primary last; a rollback, which would replace all at once, is refused."""
    three.stack.environment["DB_SHARED_BUFFERS"] = "64MB"

    def event(load: Load) -> None:
        load.mark()
        print(three.make("swarm-deploy"))

    load = under_load(three, "the members are replaced one after another", event)
    assert members.sql("SHOW shared_buffers") == "64MB"
    assert away(load) < WHOLE_SECONDS * 3
    poll("three members", members.is_whole, seconds=WHOLE_SECONDS)
    assert "one after another by `make swarm-deploy" in three.make("swarm-rollback", check=False)


def test_backup_follows_and_is_restored(three: Swarm, members: Members) -> None:
    """Into three new members, beside what the old ones had."""
    assert three.machines.count == 3
    with three.stack.session() as session:
        made = session.post(three.stack.url("/items"), json={"name": "before"}, timeout=10)
    assert made.status_code == 201
    primary = members.machine("Leader")
    copied = "SELECT count(*) FROM pg_stat_replication WHERE application_name = 'backup'"
    poll("the copy of the log", lambda: members.sql(copied) == "1")
    timeline = members.sql("SELECT timeline_id FROM pg_control_checkpoint()")
    last = "ls -d /srv/backups/*/*/ | tail -n 1 | xargs -I% sh -c 'cat %/timeline; ls %/base'"

    def is_backed_up() -> bool:
        said = docker("exec", three.machines.container(3), "sh", "-c", last).split()
        return len(said) > 1 and said[0] == timeline

    poll(f"a base backup of {primary}'s", is_backed_up, seconds=120)
    with three.stack.session() as session:
        made = session.post(three.stack.url("/items"), json={"name": "after"}, timeout=10)
    assert made.status_code == 201
    rows = members.sql("SELECT count(*) FROM items")
    time.sleep(2)  # for the log to be copied
    three.make("swarm-down")
    image = three.machines.push_to("shop:1")
    began = time.monotonic()
    three.stack.environment["RESTORE"] = "1"
    three.make("swarm-deploy", f"IMAGE={image}")
    print(f"restored within {time.monotonic() - began:.1f} s")
    assert members.sql("SELECT count(*) FROM items") == rows
    assert members.sql("SELECT count(*) FROM items WHERE name IN ('before', 'after')") == "2"
    with three.stack.session() as session:
        made = session.post(three.stack.url("/items"), json={"name": "anew"}, timeout=10)
    assert made.status_code == 201


def test_machine_that_has_lost_all_takes_its_place_anew(three: Swarm, members: Members) -> None:
    """By the commands of docs/three-databases.md; until then the others turn its etcd away."""
    machines, project = three.machines, three.stack.project
    rows = members.sql("SELECT count(*) FROM items")
    machines.docker(1, "node", "update", "--label-rm=berth.database", "node3")
    volumes = [f"{project}_etcd3", f"{project}_postgres3"]

    def are_gone() -> bool:
        with contextlib.suppress(AssertionError):  # as long as a container has one
            machines.docker(3, "container", "prune", "--force")
            machines.docker(3, "volume", "rm", *volumes)
        there = machines.docker(3, "volume", "ls", "--format={{.Name}}").split()
        return not set(volumes) & set(there)

    poll("volumes that are gone", are_gone, seconds=90)
    machines.docker(1, "node", "update", "--label-add=berth.database=3", "node3")
    poll("its etcd turned away", lambda: "already been bootstrapped" in logs(three, "etcd3"))
    listed = members.run("etcd1", "etcdctl", "member", "list")
    lost = next(line for line in listed.splitlines() if "http://etcd3:2380" in line).split(",")[0]
    members.run("etcd1", "etcdctl", "member", "remove", lost)
    members.run("etcd1", "etcdctl", "member", "add", "etcd3", "--peer-urls=http://etcd3:2380")
    joins = "--env-add=ETCD_INITIAL_CLUSTER_STATE=existing"
    machines.docker(1, "service", "update", "--detach", joins, f"{project}_etcd3")
    poll("three members", members.is_whole, seconds=WHOLE_SECONDS)
    assert members.sql("SELECT count(*) FROM items") == rows


def logs(three: Swarm, service: str) -> str:
    """Return what a service said last."""
    return three.machines.docker(
        1, "service", "logs", "--tail=20", f"{three.stack.project}_{service}"
    )
