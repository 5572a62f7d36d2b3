"""`make swarm-deploy` and its like: on three machines, as on one, no request is lost."""

import copy
import json
import re
import shutil

import pytest

from ops.swarm import engine
from ops.swarm.release import KEPT, Releases
from ops.swarm.stack_file import Piece
from tests.stack import report
from tests.stack.load import steady_load
from tests.stack.stack import poll
from tests.swarm.events import RATE, whole
from tests.swarm.swarm import BAD, Swarm


def names(swarm: Swarm, kind: str) -> set[str]:
    """Return the names of the configs or secrets there are."""
    return set(swarm.machines.docker(1, kind, "ls", "--format={{.Name}}").split())


def test_app_is_served_by_every_machine(swarm: Swarm) -> None:
    """With the certificate that was brought, from a database elsewhere; clients are known."""
    whole(swarm)  # a Traefik that has just started does not know replicas for a second
    for port in swarm.machines.https.values():
        swarm.stack.ports = {1: port}
        with swarm.stack.session() as session:
            made = session.post(swarm.stack.url("/items"), json={"name": f"by-{port}"}, timeout=10)
        assert made.status_code == 201
        gateway = swarm.machines.address(-1)
        assert swarm.stack.get("/where").json()["client"] == gateway
    swarm.stack.ports = dict(swarm.machines.https)
    # All three at first; a machine that was away gets none back until the next deploy.
    assert len(set(swarm.tasks().values())) >= 2
    assert (
        swarm.database.sql(
            "SELECT bool_and(ssl) FROM pg_stat_ssl JOIN pg_stat_activity "
            "USING (pid) WHERE client_addr IS NOT NULL"
        )
        == "t"
    )


def test_doctor_finds_all_well(swarm: Swarm) -> None:
    """On a machine whose engine keeps processes from gaining privileges."""
    found = json.loads(swarm.stack.run("make", "swarm-doctor", "JSON=1").stdout)
    assert {one["check"]: one["level"] for one in found} == dict.fromkeys(
        (
            *("machines", "versions", "privileges", "release"),
            *("services", "spread", "answers", "certificate"),
        ),
        "good",
    ) | {"certificate": "warning"}
    assert "the certificate ends in" in found[-1]["says"]


def test_deploy_and_rollback_lose_no_request(swarm: Swarm) -> None:
    """Nor does a deploy of other settings; what no release needs any more is gone."""
    before = swarm.stack.get("/version").json()["version"]
    image = swarm.build()
    with steady_load(swarm.stack, rate=RATE) as load:
        load.mark()
        said = swarm.make("swarm-deploy", f"IMAGE={image}")
    report.record("deploy", "three machines", load)
    assert load.why() == {}
    assert swarm.stack.get("/version").json()["version"] != before
    with steady_load(swarm.stack, rate=RATE) as back:
        swarm.make("swarm-rollback")
    assert back.why() == {}
    assert swarm.stack.get("/version").json()["version"] == before
    swarm.assert_stored(load)
    swarm.assert_stored(back)
    assert re.search(r"release \d+: .*@sha256:", said)


def test_version_that_does_not_start_leaves_the_old_one_serving(swarm: Swarm) -> None:
    """The swarm goes back by itself; the sentence has the version's last words."""
    before = swarm.stack.get("/version").json()["version"]
    image = swarm.build(code=BAD)
    with steady_load(swarm.stack, rate=RATE) as load:
        load.mark()
        said = swarm.make("swarm-deploy", f"IMAGE={image}", check=False)
    assert "this version does not start" in said
    assert "goes on serving" in said
    report.record("bad deploy", "three machines", load)
    assert load.why() == {}
    swarm.assert_stored(load)
    assert swarm.stack.get("/version").json()["version"] == before
    assert len(swarm.tasks()) == 4


def test_migration_that_fails_changes_nothing_else(swarm: Swarm) -> None:
    """Its last words are said."""
    before = swarm.tasks()
    said = swarm.make("swarm-deploy", "MIGRATE=echo not today; exit 1", check=False)
    assert "`migrate` failed" in said
    assert "not today" in said
    assert swarm.tasks() == before


def test_replica_that_finds_no_machine_is_reported(swarm: Swarm) -> None:
    """Swarm itself would wait for ever."""
    before = swarm.stack.get("/version").json()["version"]
    (swarm.stack.folder / "reserve.yaml").write_text(
        "services: {api: {deploy: {resources: {reservations: {memory: 1000g}}}}}"
    )
    files = f"COMPOSE_FILE={swarm.stack.environment['COMPOSE_FILE']}:reserve.yaml"
    said = swarm.make("swarm-deploy", files, "DEPLOY_SECONDS=1", check=False)
    assert "no suitable node (insufficient resources" in said
    assert "goes on serving" in said
    poll("four again", lambda: len(swarm.tasks()) == 4)
    assert swarm.stack.get("/version").json()["version"] == before


def test_secret_that_is_new_reaches_the_app(swarm: Swarm) -> None:
    """Replicas that have it take the place of those that do not."""
    before = swarm.tasks()
    (swarm.stack.folder / "secrets").mkdir()
    (swarm.stack.folder / "secrets" / "API_KEY").write_text("of the app")
    said = swarm.make("swarm-deploy")
    assert "of the app" not in said
    after = swarm.tasks()
    assert not set(after) & set(before)
    task, node = after.popitem()
    asked = ("exec", task, "cat", "/run/app/current/secrets/API_KEY")
    assert swarm.machines.docker(int(node[-1]), *asked) == "of the app"
    shutil.rmtree(swarm.stack.folder / "secrets")


def test_old_releases_go_and_what_only_they_needed(
    swarm: Swarm, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one that runs stays, and what it needs."""
    monkeypatch.setenv("DOCKER_HOST", swarm.machines.endpoint(1))
    stack = swarm.stack.project
    releases = Releases(stack)
    current = releases.read(releases.current(engine.services(stack)))
    needed = names(swarm, "secret")
    piece = Piece.of("secret", stack, "old", b"old")
    releases.put([piece])
    file = copy.deepcopy(current.file)
    file["secrets"][piece.name] = {"external": True, "name": piece.name}
    old = releases.write("old", 0, file)
    others = [releases.write("other", 0, copy.deepcopy(current.file)) for _ in range(KEPT)]
    releases.prune(current.number)
    assert old.number not in releases.numbers()
    assert current.number in releases.numbers()
    assert names(swarm, "secret") == needed
    for one in others:
        releases.forget(one.number)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["swarm-deploy", "IMAGE=Not a name"], "give the name of an image"),
        (["swarm-deploy", "DATABASE_URL_FILE="], "name one elsewhere with DATABASE_URL_FILE"),
        (["swarm-rollback", "TO=999"], "release 999 is not kept"),
    ],
)
def test_what_cannot_work_is_said_in_a_sentence(swarm: Swarm, words: list[str], says: str) -> None:
    """Before anything has changed."""
    before = swarm.tasks()
    said = swarm.make(*words, check=False)
    assert says in said
    assert swarm.tasks() == before
