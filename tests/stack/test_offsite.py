"""Backups are copied off the host, and come back from there."""

import time
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from tests.stack.stack import Stack, docker, image, poll, running
from tests.stack.test_backup import alarm, await_proof, finding, names, post, psql
from tests.stack.writer import writing

# As docs/backups.md has it.
UPLOADS = """
services:
  offsite:
    volumes: ["uploads:/volumes/uploads:ro"]
  fetch:
    volumes: ["uploads:/volumes/uploads"]
volumes:
  uploads:
"""


@pytest.fixture(scope="module")
def copied(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack whose backups are copied off the host: to a volume that stands for another one."""
    keys = tmp_path_factory.mktemp("keys")
    (keys / "password").write_text("a password that is kept elsewhere\n")
    own = keys / "own.yaml"
    own.write_text(UPLOADS)
    with running(
        "berth-test-copied",
        COMPOSE_FILE=f"compose.yaml:{own}",
        scale=1,
        BACKUP_DIR="backups",
        RESTIC_REPOSITORY="/offsite/repository",
        COMPOSE_PROFILES="offsite",
        OFFSITE_KEYS=str(keys),
        OFFSITE_SECONDS="1",
        BACKUP_LAG="32MB",
    ) as stack:
        poll("the first answer", stack.answers)
        await_proof(stack)
        yield stack


def test_a_vanished_target_raises_the_alarm_and_stops_nothing(copied: Stack) -> None:
    """Nothing new begins in its place, and copies go on when it is back."""
    poll("the first copy", lambda: "copied off the host" in finding(copied)["says"])
    among_copies(copied, "mv /offsite/repository /offsite/away")
    with writing(copied, "vanished") as writer:
        poll("the alarm", lambda: "the copy off the host fails" in alarm(copied))
        writer.await_more()
        among_copies(copied, "test ! -e /offsite/repository/config")
        among_copies(copied, "rm -rf /offsite/repository; mv /offsite/away /offsite/repository")
        poll("the alarm's end", lambda: alarm(copied) == "")
    assert not writer.refused


def test_a_dead_backup_cannot_fill_the_databases_disk(copied: Stack) -> None:
    """What is kept for it is bounded; it begins anew with a base backup when it is back."""
    (backup,) = copied.containers("backup")
    docker("kill", backup["Id"])
    for _ in range(8):
        psql(copied, "SELECT pg_logical_emit_message(false, 'test', 'x'), pg_switch_wal()")

    def dropped() -> bool:
        psql(copied, "CHECKPOINT")
        return psql(copied, "SELECT wal_status FROM pg_replication_slots") == "lost"

    poll("the end of what is kept", dropped)
    docker("start", backup["Id"])
    poll("the alarm's end", lambda: alarm(copied) == "")
    await_proof(copied)


def test_a_lost_host_is_restored_from_its_copy(copied: Stack) -> None:
    """With new passwords on the new one; what is copied is there, and encrypted.

    So are files of the app's own, with their owners and modes.
    """
    assert copied.doctor()["volumes"]["says"] == "copied off-site with the backups: uploads"
    upload = "chown 1234:5678 . && mkdir -p unfinished && echo a picture > unfinished/1.png"
    in_uploads(copied, f"{upload} && chown 1234 unfinished/1.png && chmod 640 unfinished/1.png")
    post(copied, "a name to look for")
    psql(copied, "SELECT pg_switch_wal()")
    look = "grep -r -l 'a name to look for'"
    poll("the log in the backups", lambda: among_copies(copied, f"{look} /backups || true"))
    await_copy(copied)
    assert "is encrypted" in among_copies(copied, f"{look} /offsite || echo is encrypted")
    # What is looked for is really in there, for whoever has the password.
    dump = "restic --no-lock dump latest /backups | grep -c 'a name to look for'"
    password = "export RESTIC_PASSWORD_FILE=/keys/password RESTIC_CACHE_DIR=/cache"
    assert int(among_copies(copied, f"{password}; {dump}")) > 0
    # One from a time to come, of when the clock was wrong, is not the latest.
    wrong = "restic backup --quiet --host=berth --time='2099-01-01 00:00:00' /berth"
    among_copies(copied, f"{password}; {wrong}")
    copied.compose("down")
    volumes = ("database", "backups", "secrets", "offsite-cache", "socket", "uploads")
    docker("volume", "rm", *(f"{copied.project}_{volume}" for volume in volumes))
    copied.run("make", "restore", "FROM=offsite", "YES=1")
    assert "a name to look for" in names(copied)
    poll("the app on it", copied.answers)
    post(copied, "the password fits")
    listed = "stat -c '%u:%g %a %n' . unfinished/1.png; cat unfinished/1.png"
    kept = "1234:5678 755 .\n1234:0 640 unfinished/1.png\na picture"
    assert in_uploads(copied, listed) == kept
    # What is there stays; what was deleted comes back into an empty volume alone.
    in_uploads(copied, "echo another > unfinished/1.png")
    again = ("run", "--rm", "--no-deps", "-T", "fetch", "volumes")
    assert "uploads holds files: it stays as it is" in copied.compose(*again)
    assert in_uploads(copied, "cat unfinished/1.png") == "another"
    await_copy(copied)
    copied.compose("stop", "offsite")
    moment = datetime.now(UTC).strftime("%F %T")
    in_uploads(copied, "rm -r unfinished; sleep 1")
    copied.compose("start", "offsite")
    await_copy(copied)
    copied.compose(*again)
    assert in_uploads(copied, "ls") == ""
    copied.compose(*again, moment)
    assert in_uploads(copied, "cat unfinished/1.png") == "another"


def await_copy(stack: Stack) -> None:
    """Return once all that there is now is copied."""
    since = time.time()

    def copied() -> bool:
        return float(among_copies(stack, "cat /tmp/copied 2> /dev/null || echo 0")) > since + 2

    poll("a copy", copied)


def in_uploads(stack: Stack, script: str) -> str:
    """Run a line of shell in the volume of the app's own files."""
    mount = f"--volume={stack.project}_uploads:/uploads"
    command = ("--workdir=/uploads", "--entrypoint=sh", image("postgres"), "-ec", script)
    return docker("run", "--rm", "--network=none", mount, *command)


def among_copies(stack: Stack, script: str) -> str:
    """Return what a line of sh prints where copies are made; restic's image has no bash."""
    (offsite,) = stack.containers("offsite")
    return docker("exec", offsite["Id"], "sh", "-c", script)
