"""Backups whose disk is full, or empty where it was not."""

from collections.abc import Iterator

import pytest

from tests.stack.stack import HERE, Stack, docker, poll, running
from tests.stack.test_backup import alarm, await_proof, inside, psql
from tests.stack.writer import writing


@pytest.fixture(scope="module")
def cramped() -> Iterator[Stack]:
    """A stack whose backups have a small disk of their own."""
    files = f"compose.yaml:{HERE}/compose.small-backups.yaml"
    with running("berth-test-cramped", scale=1, BACKUP_DIR="backups", COMPOSE_FILE=files) as stack:
        poll("the first answer", stack.answers)
        await_proof(stack)
        yield stack


def test_the_app_serves_on_while_the_disk_of_its_backups_is_full(cramped: Stack) -> None:
    """The alarm is raised; with room again, the copy catches up by itself."""
    inside(cramped, "head -c 1G /dev/zero > /backups/ballast || true")
    with writing(cramped, "full") as writer:
        psql(cramped, "SELECT pg_switch_wal()")
        poll("the alarm", lambda: "No space left on device" in alarm(cramped))
        writer.await_more()
        inside(cramped, "rm /backups/ballast")
        poll("the alarm's end", lambda: alarm(cramped) == "")
    assert not writer.refused
    cramped.run("make", "verify-backup")


def test_an_empty_disk_where_backups_were_raises_the_alarm(cramped: Stack) -> None:
    """It may just not be mounted; only a person can tell."""
    with writing(cramped, "vanished") as writer:
        (backup,), (proof,) = (cramped.containers(one) for one in ("backup", "proof"))
        docker("kill", backup["Id"], proof["Id"])
        docker("start", backup["Id"], proof["Id"])
        poll("the alarm", lambda: "is its disk mounted?" in alarm(cramped))
        writer.await_more()
        cramped.run("make", "backup", "ANEW=yes")
        poll("the alarm's end", lambda: alarm(cramped) == "")
    assert not writer.refused
    cramped.run("make", "verify-backup")
    assert len(inside(cramped, "ls -d /backups/[0-9]*/*").split()) == 1


def test_a_base_backup_spares_a_younger_stretch_of_the_log(cramped: Stack) -> None:
    """One that was begun meanwhile has no base backup yet; an old one without is of no use."""
    made = "/backups/$(cat /backups/system)"
    old, young = "20010101T000000Z", "29990101T000000Z"
    inside(cramped, f"mkdir -p {made}/{old}/base {made}/{young}/base")
    try:
        cramped.run("make", "backup")
        found = inside(cramped, f"ls {made}").split()
    finally:
        inside(cramped, f"rm -rf {made}/{old} {made}/{young}")
    assert young in found
    assert old not in found
