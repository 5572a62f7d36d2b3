"""What was acknowledged survives the loss of the database; backups that cannot do that say so."""

import re
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
import requests

from host import images
from tests.stack.stack import Stack, copy_of_repository, docker, poll, running
from tests.stack.writer import writing


@pytest.fixture(scope="module")
def kept() -> Iterator[Stack]:
    """A stack whose writes wait for their copy; a test leaves it serving and backed up."""
    with running(
        "berth-test-backup", scale=2, BACKUP_DIR="backups", BACKUP_SYNCHRONOUS="on"
    ) as stack:
        poll("the first answer", stack.answers)
        await_proof(stack)
        yield stack


def test_the_database_is_upgraded_with_all_it_holds(tmp_path: Path) -> None:
    """From PostgreSQL 17 to 18, not without a proven backup, and it is backed up again at once."""
    images.ensure(["postgres:17.6"])
    folder = copy_of_repository(tmp_path)
    for file in ("migrations/versions/0001_create_items.py", "app/items/models.py"):
        code = (folder / file).read_text()
        (folder / file).write_text(code.replace("uuidv7()", "gen_random_uuid()"))  # not in 17 yet
    variables = {"BACKUP_DIR": "backups", "POSTGRES_IMAGE": "postgres:17.6"}
    with running("berth-test-upgrade", scale=1, folder=folder, **variables) as stack:
        poll("the first answer", stack.answers)
        await_proof(stack)
        assert psql(stack, "SHOW server_version_num").startswith("17")
        post(stack, "from before")
        owner = psql(stack, "SELECT datdba::regrole FROM pg_database WHERE datname = 'berth'")
        psql(stack, _RUN_BY_A_DUMP.format(owner=owner), database="berth")
        upgrade = ("make", "upgrade-db", "YES=1", "FROM_IMAGE=postgres:17.6")
        del stack.environment["POSTGRES_IMAGE"]
        inside(stack, "mv /backups/proven /backups/away")
        refused = stack.run(*upgrade, check=False)
        assert refused.returncode != 0
        assert "no backup was ever proven" in refused.stderr
        inside(stack, "mv /backups/away /backups/proven")
        stack.run(*upgrade)
        assert psql(stack, "SHOW server_version_num").startswith("18")
        assert "from before" in names(stack)
        assert psql(stack, "SELECT * FROM checked", database="berth") == "from before"
        assert psql(stack, "SHOW statement_timeout", database="berth") == "17min"
        assert psql(stack, "SHOW listen_addresses") == "*"
        assert psql(stack, _OPEN_TO_ALL) == "0"
        poll("the app on it", stack.answers)
        post(stack, "from after")
        await_proof(stack)


def test_no_acknowledged_write_is_lost_with_the_database(kept: Stack) -> None:
    """Each waited for its copy, so the volume's end costs none."""
    poll("waiting for the copy", lambda: setting(kept) == "backup")
    with writing(kept, "waited") as writer:
        destroy_database(kept)
    said = kept.run("make", "restore", "YES=1").stdout
    assert "the schema is at" in said
    assert set(writer.acknowledged) <= names(kept)
    await_proof(kept)


def test_at_most_the_last_second_is_lost_when_writes_do_not_wait(kept: Stack) -> None:
    """Without waiting, the copy is still only moments behind."""
    kept.environment["BACKUP_SYNCHRONOUS"] = "off"
    kept.compose("up", "--detach", "--no-deps", "backup")
    poll("not waiting", lambda: setting(kept) == "")
    await_proof(kept)
    with writing(kept, "unwaited") as writer:
        writer.await_more(200)
        destroyed = destroy_database(kept)
    kept.run("make", "restore", "YES=1")
    there = names(kept)
    lost = [at for name, at in writer.acknowledged.items() if name not in there]
    print(f"lost {len(lost)} of {len(writer.acknowledged)} acknowledged writes")
    assert all(at > destroyed - 1 for at in lost), (destroyed, lost)
    await_proof(kept)


def test_restoring_a_moment_shows_exactly_what_was_there(kept: Stack) -> None:
    """Of two writes, the first; at first beside the live database, then in its place."""
    post(kept, "before")
    time.sleep(0.1)
    moment = datetime.now(UTC).isoformat(sep=" ")
    time.sleep(0.1)
    post(kept, "after")
    kept.run("make", "restore", f"TO={moment}", "INTO=scratch")
    try:
        beside = names(kept, "scratch")
        assert "before" in beside
        assert "after" not in beside
        assert {"before", "after"} <= names(kept)
    finally:
        kept.compose("--profile=scratch", "rm", "--stop", "--force", "--volumes", "scratch")
    kept.run("make", "restore", f"TO={moment}", "YES=1")
    assert names(kept) == beside
    poll("the app on it", kept.answers)
    await_proof(kept)


def test_a_restore_that_fails_leaves_what_was_there(kept: Stack) -> None:
    """A moment before the first backup, and nobody to confirm."""
    before = names(kept)
    unconfirmed = kept.run("make", "restore", check=False)
    assert unconfirmed.returncode != 0
    assert "YES=1" in unconfirmed.stderr
    done = kept.run("make", "restore", "TO=2001-01-01 00:00:00+00", "YES=1", check=False)
    assert done.returncode != 0
    assert "no base backup is older than 2001-01-01" in done.stderr
    assert names(kept) == before
    assert kept.answers()


def test_a_flipped_byte_is_found_and_named(kept: Stack) -> None:
    """By `make verify-backup`, whose finding stays in `make doctor` until a proof succeeds."""
    newest = inside(kept, "ls -d /backups/*/*/base/*/* | sort | tail -n 1")
    file = "global/1262"
    flip(kept, f"{newest}/{file}")
    done = kept.run("make", "verify-backup", check=False)
    assert done.returncode != 0
    assert f'checksum mismatch for file "{file}"' in done.stdout
    assert newest.rsplit("/", 1)[1] in done.stdout
    assert file in alarm(kept)
    flip(kept, f"{newest}/{file}")
    kept.run("make", "verify-backup")
    assert alarm(kept) == ""


def test_a_flipped_byte_in_the_log_is_found_and_named(kept: Stack) -> None:
    """PostgreSQL takes it for the log's end; but it is known how far the log was received."""
    segment = inside(kept, "ls -d /backups/*/*/wal/*.partial | sort | tail -n 1")
    name = segment.rsplit("/", 1)[1].removesuffix(".partial")
    with writing(kept, "logged"):
        pass
    at = int(psql(kept, "SELECT file_offset FROM pg_walfile_name_offset(pg_current_wal_lsn())"))
    with writing(kept, "later"):
        written = psql(kept, "SELECT pg_current_wal_lsn()")

        def noted() -> bool:
            received = inside(kept, "cat $(< /tmp/history)/received")
            return psql(kept, f"SELECT '{received}' > pg_lsn '{written}'") == "t"

        poll("the note of how far it was received", noted)
    flip(kept, segment, at + 30)
    done = kept.run("make", "verify-backup", check=False)
    assert done.returncode != 0
    assert f"the log is damaged in wal/{name}" in done.stdout
    flip(kept, segment, at + 30)
    kept.run("make", "verify-backup")
    assert alarm(kept) == ""


def test_a_log_that_goes_on_while_it_is_proven_is_not_taken_for_damaged(kept: Stack) -> None:
    """Segments that were not there when the proof began say nothing of where it had to end."""
    ends_one = "SELECT pg_logical_emit_message(false, 'busy', 'x'), pg_switch_wal()"
    busy = f'for ((i = 0; i < 40; i++)); do psql -Atc "{ends_one}"; sleep 0.2; done'
    kept.compose("exec", "-T", "--detach", "db", "bash", "-c", busy)
    # As verify.sh does it, with time for a few of them between the log's end and the look at it.
    slowly = """
        exec 9> /tmp/lock; flock 9
        source /berth/lib.sh; source /berth/recover.sh
        pg_ctl() { command pg_ctl "$@" 9>&- && { [[ $1 != start ]] || sleep 1; }; }
        trap 'pg_ctl stop --mode=immediate --pgdata=$proofs/slow; rm -rf $proofs/slow' EXIT
        export SHARED_BUFFERS=16MB PROVING=yes
        recover $proofs/slow
    """
    said = kept.compose("exec", "-T", "proof", "bash", "-euo", "pipefail", "-c", slowly)
    end = said.partition("the log ends at ")[2].split(",")[0].split()[0]
    assert psql(kept, f"SELECT pg_current_wal_lsn() - '{end}' > 2 * 16777216") == "t"


def test_the_app_serves_on_without_its_backup_service(kept: Stack) -> None:
    """What it missed, it copies when it is back."""
    (backup,) = kept.containers("backup")
    with writing(kept, "alone") as writer:
        docker("kill", backup["Id"])
        assert "does not run" in alarm(kept)
        writer.await_more()
        assert not writer.refused
        docker("start", backup["Id"])
        poll("the alarm's end", lambda: alarm(kept) == "")
    assert not writer.refused
    kept.run("make", "verify-backup")


def test_two_base_backups_in_one_second_have_two_names(kept: Stack) -> None:
    """One may be asked for at the moment at which the schedule takes its own."""
    slow_clock = """
        date() {
            [[ $1 == +%s ]] || { command date "$@"; return; }
            echo $(($(command date +%s) / 10 * 10))
        }
        export -f date
        for i in 1 2 3; do bash /berth/attempt.sh base; done
    """
    taken = re.findall("base backup (.*),", inside(kept, f"set -e\n{slow_clock}"))
    assert len(set(taken)) == 3
    assert alarm(kept) == ""


def destroy_database(stack: Stack) -> float:
    """Lose the database with its volume, as with its disk; returns when."""
    (db,) = stack.containers("db")
    destroyed = time.monotonic()
    docker("kill", db["Id"])
    docker("rm", "--force", "--volumes", db["Id"])
    docker("volume", "rm", f"{stack.project}_database")
    return destroyed


def alarm(stack: Stack) -> str:
    """Return what the doctor has against the backups; empty if they are well."""
    found = finding(stack)
    return found["says"] if found["level"] == "bad" else ""


def await_proof(stack: Stack) -> None:
    """Return once the schedule has proven the newest base backup of the present history."""

    def proven() -> bool:
        script = (
            'source /berth/lib.sh; newest=$(backups "$(cat /tmp/history)" | tail -n 1);'
            '[[ -n $newest && $(cut -d" " -f2 /backups/proven) == "${newest##*/}" ]]'
        )
        command = ("docker", "compose", "exec", "-T", "backup", "bash", "-c", script)
        return stack.run(*command, check=False).returncode == 0

    poll("a proof", proven, seconds=60)


def inside(stack: Stack, script: str) -> str:
    """Return what a line of bash prints in the backup service."""
    return stack.run(
        "docker", "compose", "exec", "-T", "backup", "bash", "-c", script
    ).stdout.strip()


def flip(stack: Stack, file: str, at: int = 100) -> None:
    """Change one byte of a file; doing it twice undoes it."""
    inside(
        stack,
        f"byte=$(od -An -tu1 -j{at} -N1 {file}); chmod u+w {file};"
        f'printf "\\\\x$(printf %02x $((byte ^ 255)))" | dd of={file} bs=1 seek={at} conv=notrunc',
    )


def psql(stack: Stack, statement: str, service: str = "db", database: str = "postgres") -> str:
    """Return what a statement yields."""
    command = ("psql", "-At", f"--dbname={database}", f"--command={statement}")
    return stack.run("docker", "compose", "exec", "-T", service, *command).stdout.strip()


def setting(stack: Stack) -> str:
    """Return whom writes wait for."""
    return psql(stack, "SHOW synchronous_standby_names")


def names(stack: Stack, service: str = "db") -> set[str]:
    """Return the names of all items."""
    return set(psql(stack, "SELECT name FROM items", service, "berth").splitlines())


def post(stack: Stack, name: str) -> None:
    """Write an item."""
    with stack.session() as session:
        answer = session.post(stack.url("/items"), json={"name": name}, timeout=10)
    assert answer.status_code == requests.codes.created


def finding(stack: Stack) -> dict[str, str]:
    """Return what the doctor says of the backups."""
    return stack.doctor()["backups"]


# What the database's owner may make, and a dump runs: it must not be a superuser who does.
_RUN_BY_A_DUMP = """
    SET SESSION AUTHORIZATION {owner};
    CREATE FUNCTION public.by_whom(text) RETURNS boolean LANGUAGE plpgsql AS $$
        BEGIN
            IF current_setting('is_superuser')::boolean THEN
                RAISE EXCEPTION 'a superuser runs what the app wrote';
            END IF;
            RETURN true;
        END $$;
    CREATE TABLE public.checked (name text CHECK (public.by_whom(name)));
    INSERT INTO public.checked VALUES ('from before');
    CREATE EXTENSION citext;
    ALTER DATABASE berth SET statement_timeout = '17min';
"""

_OPEN_TO_ALL = """SELECT count(*)
    FROM pg_database, aclexplode(coalesce(datacl, acldefault('d', datdba)))
    WHERE datname = 'berth' AND grantee = 0"""
