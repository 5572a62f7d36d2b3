"""Data survives what happens on bad days: kills, clocks that are wrong, disks, folders, crashes."""

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.stack.stack import HERE, Stack, docker, poll, running
from tests.stack.test_backup import (
    alarm,
    await_proof,
    destroy_database,
    inside,
    names,
    post,
    psql,
)

AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root gives folders to others")
IMAGE = "postgres:18.6"
USER = 1000
YEAR = 365 * 86400
VOLUME = "/var/lib/postgresql"


@pytest.fixture(scope="module")
def days(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack with backups in a folder as people make it; a test leaves it backed up."""
    folder = people_folder(tmp_path_factory.mktemp("days") / "backups")
    as_root(folder, "install -d -m 700 /it/lost+found")
    with running(
        "berth-test-days",
        scale=1,
        BACKUP_DIR=str(folder),
        BACKUP_FULL_DAYS="0",  # each is a set of its own
        BACKUP_KEEP_DAYS="1",
        COMPOSE_FILE=f"compose.yaml:{HERE}/compose.bad-days.yaml",
        STACK_TESTS=str(HERE),
    ) as stack:
        poll("the first answer", stack.answers)
        await_proof(stack)
        yield stack
    as_root(folder, "find /it -mindepth 1 -delete")


def people_folder(folder: Path, mode: int = 0o755) -> Path:
    """Make a folder as an ordinary user does."""
    folder.mkdir()
    folder.chmod(mode)
    if os.geteuid() == 0:
        os.chown(folder, USER, USER)
    return folder


def as_root(folder: Path, script: str) -> None:
    """Do in a folder what only root may."""
    docker("run", "--rm", f"--volume={folder}:/it", "--entrypoint=bash", IMAGE, "-c", script)


def test_a_folder_of_an_ordinary_user_is_backed_up_to(days: Stack) -> None:
    """Though a file system's own lost+found lies in it; nobody else may look into it."""
    assert alarm(days) == ""
    assert inside(days, "stat --format='%a %U' /backups") == "700 postgres"
    assert inside(days, "stat --format='%a %U' /backups/lost+found") == "700 root"


@AS_ROOT
@pytest.mark.parametrize(
    ("mode", "files", "says"),
    [
        (0o700, (), ""),
        (0o755, ("photo",), "holds other files (photo): give a folder of its own"),
        (0o700, ("photo",), "holds other files (photo): give a folder of its own"),
        (0o755, ("system", "photo"), "sudo chown --recursive 999:999"),
    ],
)
def test_a_folder_that_is_in_use_is_left_alone(
    days: Stack, tmp_path: Path, mode: int, files: tuple[str, ...], says: str
) -> None:
    """And one sentence says what to do."""
    folder = people_folder(tmp_path / "folder", mode)
    for file in files:
        (folder / file).touch()
        os.chown(folder / file, USER, USER)
    assert says in (said := settings(days, folder))
    assert (says == "") == (said == "")
    assert folder.stat().st_uid == (USER if says else 999)
    assert all((folder / file).stat().st_uid == USER for file in files)


@AS_ROOT
def test_a_folder_that_cannot_be_given_away_is_named_with_the_cure(
    days: Stack, tmp_path: Path
) -> None:
    """As on NFS with root squashed; what the sentence says to type is enough."""
    folder = people_folder(tmp_path / "folder")
    overlay = tmp_path / "squashed.yaml"
    overlay.write_text("services: {secrets: {cap_add: !reset []}}\n")
    said = settings(days, folder, overlay)
    assert "cannot be given to the database's user" in said
    cure = f"sudo chown 999:999 {folder}"
    assert f"`{cure}`" in said
    subprocess.run(cure.removeprefix("sudo ").split(), check=True)
    assert settings(days, folder, overlay) == ""
    open_folder = people_folder(tmp_path / "open", 0o777)
    assert settings(days, open_folder, overlay) == ""


def settings(stack: Stack, folder: Path, *overlays: Path) -> str:
    """Return what is said against a folder for backups before anything starts."""
    files = ":".join(["compose.yaml", *map(str, overlays)])
    variables = ("env", f"BACKUP_DIR={folder}", f"COMPOSE_FILE={files}")
    done = stack.run(
        *variables, "docker", "compose", "run", "--rm", "--no-TTY", "secrets", check=False
    )
    assert (done.returncode == 0) == (done.stdout == ""), done
    return done.stdout


@AS_ROOT
def test_a_disk_that_is_mounted_late_is_noticed(days: Stack) -> None:
    """So is one that is missing, and one that became read-only; the cures are named."""
    folder = days.environment["BACKUP_DIR"]
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m,uid=999", "late", folder], check=True)
    try:
        assert "a disk was mounted at BACKUP_DIR after backup started" in alarm(days)
        days.compose("restart", "backup")
        poll("the alarm", lambda: "BACKUP_DIR is empty" in alarm(days))
        assert "`docker compose restart backup`" in alarm(days)
        subprocess.run(["mount", "-o", "remount,ro", folder], check=True)
        inside(days, "touch /tmp/anew")
        poll(
            "the alarm",
            lambda: "cannot be written to (Read-only file system)" in alarm(days),
        )
    finally:
        inside(days, "rm -f /tmp/anew")
        days.compose("stop", "backup")
        subprocess.run(["umount", folder], check=True)
    days.compose("start", "backup")
    poll("the alarm's end", lambda: alarm(days) == "")


def test_a_clock_that_jumps_a_year_ahead_and_back_costs_no_backup(days: Stack) -> None:
    """It raises an alarm; both ways a base backup is taken, and one can restore."""
    days.run("make", "backup")
    before = sets(days)
    assert len(before) > 1
    inside(days, f"echo {YEAR} > /tmp/wrong")
    poll("the alarm", lambda: "the clock jumped 365 days ahead" in alarm(days))
    poll("a base backup", lambda: len(sets(days)) > len(before))
    days.run("make", "verify-backup")
    ahead = sets(days)
    assert before < ahead
    inside(days, "rm /tmp/wrong")
    poll("a base backup", lambda: len(sets(days)) > len(ahead))
    await_proof(days)
    poll("the alarm's end", lambda: alarm(days) == "")
    assert ahead < sets(days)
    # As after a start with a clock that is behind: nothing is known but the names.
    inside(days, f"echo -{YEAR} > /tmp/wrong")
    days.compose("restart", "backup")
    inside(days, f"echo -{YEAR} > /tmp/wrong")
    poll("a base backup", lambda: len(sets(days)) > len(ahead) + 1)
    assert ahead < sets(days)
    inside(days, "rm /tmp/wrong")
    days.run("make", "backup")
    await_proof(days)
    assert ahead < sets(days)
    days.compose("restart", "backup")
    poll("the alarm's end", lambda: alarm(days) == "")


def test_old_backups_are_forgotten_once_there_are_enough(days: Stack) -> None:
    """The days to keep have passed by the clock, and there were backups on as many."""
    some = inside(days, "ls -d $(cat /tmp/history)/base/* | sed -n 1p")
    olds = [f"2020010{day}T000000Z" for day in range(1, 6)]
    base = str(Path(some).parent)
    for old in olds:
        inside(days, f"cp -al {some} {base}/{old}; mv {base}/{old}/* {base}/{old}/{old}")
    days.run("make", "backup")
    left = {Path(one).name for one in sets(days)}
    assert olds[0] not in left
    assert olds[-1] in left  # what was there a day ago can be restored from it alone
    for old in olds:
        inside(days, f"rm -rf {base}/{old}")


def test_a_changed_sort_order_is_told_and_hides_no_alarm(days: Stack) -> None:
    """Whoever connects is warned of it, before there is anything else to say."""
    assert psql(days, "SELECT DISTINCT datlocprovider FROM pg_database") == "b"
    version = psql(days, "SELECT DISTINCT datcollversion FROM pg_database WHERE datallowconn")
    await_proof(days)  # one that finds no /backups/system would stay an alarm
    psql(days, "UPDATE pg_database SET datcollversion = '0'")
    system = inside(days, "cat /backups/system")
    try:
        found = days.doctor()["database"]
        assert found["level"] == "bad"
        assert "database berth" in found["says"]
        assert "REFRESH COLLATION VERSION" in found["way_out"]
        inside(days, "rm /backups/system")
        psql(days, "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots")
        poll("the alarm", lambda: "BACKUP_DIR is empty" in alarm(days))
    finally:
        inside(days, f"echo {system} > /backups/system")
        psql(days, f"UPDATE pg_database SET datcollversion = '{version}'")
    poll("the alarm's end", lambda: alarm(days) == "")


def sets(stack: Stack) -> set[str]:
    """Return the sets of base backups."""
    return set(inside(stack, "ls -d /backups/*/*/base/*/*").splitlines())


def test_a_restore_that_is_killed_anywhere_leaves_a_database(days: Stack) -> None:
    """Every step that changes places, killed before each of its commands; then a start."""
    post(days, "acknowledged before kills")
    there = names(days)
    days.compose("stop", "api", "backup", "db")
    within(days, "recover")
    keep = "mkdir -p keep/1/2; cp -a 18/docker keep/1/2/old; mv restored keep/1/2/new;"
    shell(days, f"{keep} for one in old new; do echo $one > keep/1/2/$one/who; done")
    for step, placed in {
        "swap": "cp -a keep/1/2/old 18/docker; cp -a keep/1/2/new restored",
        "back": "cp -a keep/1/2/new 18/docker; cp -a keep/1/2/old before-restore",
    }.items():
        clear = "rm -rf 18/docker restored before-restore deleted"
        loop = f"""for ((n = 1; n < 500; n++)); do
            {clear}; {placed.replace("-a", "-al")}; code=0
            KILL_AT=$n BASH_ENV=/killed.sh bash /berth/restore.sh {step} > /tmp/said 2>&1 || code=$?
            echo "$n $code $(head -v --lines=1 */who 18/*/who 2> /dev/null | tr '\\n' ' ')"
            ((code == 137)) || break
        done"""
        lines = [line.split(" ", 2) for line in shell(days, loop).splitlines()]
        assert lines[-1][1] == "0", lines[-1]
        first_of = {layout: number for number, _, layout in reversed(lines[:-1])}
        assert len(first_of) > 1, lines
        for number in first_of.values():
            shell(days, f"{clear}; {placed}")
            within(days, step, KILL_AT=number)
            days.compose("up", "--detach", "--wait", "--no-deps", "db")
            assert there <= names(days), (step, number)
            days.compose("stop", "db")
    shell(days, f"{clear}; mv keep/1/2/old 18/docker; rm -r keep")
    start(days)
    assert there <= names(days)
    await_proof(days)


def test_a_program_that_is_killed_leaves_a_way_on(days: Stack) -> None:
    """At work, and before the new database was seen to serve."""
    post(days, "acknowledged before the program was killed")
    there = names(days)
    kill_restore(days, "recovering beside the old data")
    start(days)
    assert there <= names(days)
    await_proof(days)
    kill_restore(days, "starting the app on it")
    start(days)
    assert there <= names(days)
    refused = days.run("make", "restore", "YES=1", check=False)
    assert "a restore that did not end left the database from before it" in refused.stderr
    assert days.answers()
    assert "`docker compose run --rm restore keep`" in refused.stderr
    days.compose("run", "--rm", "restore", "keep")
    await_proof(days)
    days.run("make", "restore", "YES=1")
    assert there <= names(days)


def test_a_killed_restore_on_a_new_machine_is_begun_again(days: Stack) -> None:
    """No start makes an empty database of what is there."""
    await_proof(days)
    there = names(days)
    destroy_database(days)
    days.compose("stop", "api", "backup")
    within(days, "recover", KILL_AT="60")
    if "restored" not in shell(days, "ls"):
        shell(days, "mkdir restored; echo 18 > restored/PG_VERSION")
    refused = days.compose("up", "--detach", "--wait", "--no-deps", "db", check=False)
    assert "healthy" in refused or "exited" in refused or "restarting" in refused, refused
    assert "`make restore` begins it again" in days.logs("db")
    days.run("make", "restore", "YES=1")
    assert there <= names(days)
    await_proof(days)


def test_after_a_crash_of_the_host_all_that_was_durable_is_restored(days: Stack) -> None:
    """And it is said how much is missing; damage amid the log is refused, unless accepted."""
    await_proof(days)
    post(days, "durable")
    psql(days, "SELECT pg_switch_wal()")
    post(days, "in the last segment")
    end = psql(days, "SELECT pg_current_wal_lsn()")
    received = "cat $(cat /tmp/history)/received"
    poll(
        "the note",
        lambda: psql(days, f"SELECT '{inside(days, received)}' >= pg_lsn '{end}'") == "t",
    )
    post(days, "not synced")
    segment, at = psql(
        days, f"SELECT file_name, file_offset FROM pg_walfile_name_offset('{end}')"
    ).split("|")
    far = psql(days, f"SELECT pg_lsn '{end}' + 100000")
    days.compose("stop", "backup")
    # The log's end never reached the disk, though it was noted.
    in_backups(
        days,
        f"h=$(dirname $(dirname $(ls -d /backups/*/*/wal/{segment}.partial)));"
        f"cp -a $h/wal /backups/kept-wal; echo {far} > $h/received;"
        f"truncate --size={at} $h/wal/{segment}.partial",
    )
    try:
        said = scratch(days)
        assert "bytes of the log are missing that had been received" in said
        beside = names(days, "scratch")
        assert {"durable", "in the last segment"} <= beside
        assert "not synced" not in beside
        # A byte of a segment that others follow.
        in_backups(
            days,
            f"h=$(dirname $(dirname $(ls -d /backups/*/*/wal/{segment}.partial)));"
            "f=$(ls $h/wal | grep -v -e partial -e history | tail -n 1);"
            "printf x | dd of=$h/wal/$f bs=1 seek=4096 conv=notrunc status=none;"
            "printf x | dd of=$h/wal/$f bs=1 seek=12288 conv=notrunc status=none",
        )
        refused = days.run("make", "restore", "INTO=scratch", check=False)
        assert "the log is damaged in wal/" in refused.stderr
        said = scratch(days, "ACCEPT_LOSS=yes")
        assert "all that was written after it is lost" in said
    finally:
        days.compose("--profile=scratch", "rm", "--stop", "--force", "--volumes", "scratch")
        in_backups(
            days,
            f"h=$(dirname $(dirname $(ls -d /backups/*/*/wal/{segment}.partial)));"
            "rm -rf $h/wal; mv /backups/kept-wal $h/wal; rm $h/received",
        )
        days.compose("start", "backup")
    poll("the alarm's end", lambda: alarm(days) == "")
    days.run("make", "backup", "verify-backup")


def scratch(stack: Stack, *variables: str) -> str:
    """Return what a restore beside the live database says."""
    return stack.run("make", "restore", "INTO=scratch", *variables).stdout


def in_backups(stack: Stack, script: str) -> None:
    """Change the backups while nothing writes them."""
    folder = stack.environment["BACKUP_DIR"]
    volume = f"--volume={folder}:/backups"
    docker("run", "--rm", volume, "--user=postgres", "--entrypoint=bash", IMAGE, "-ec", script)


def within(stack: Stack, step: str, **variables: str) -> None:
    """Run a step of restore.sh, which may not survive it."""
    settings = [f"{name}={value}" for name, value in variables.items()]
    command = ("docker", "compose", "run", "--rm", "--no-TTY", "restore", step)
    done = stack.run("env", *settings, *command, check=False)
    assert done.returncode == (137 if variables else 0), done


def shell(stack: Stack, script: str) -> str:
    """Return what a script prints in the database's volume."""
    command = ("run", "--rm", "--no-TTY", "--entrypoint=bash", "restore", "-c")
    return stack.run("docker", "compose", *command, f"set -e; cd {VOLUME}; {script}").stdout


def start(stack: Stack) -> None:
    """Start what does not run, as a user does."""
    stack.compose("up", "--detach", "--scale=api=1")
    poll("the app", stack.answers, seconds=60)


def kill_restore(stack: Stack, at: str) -> None:
    """Kill `make restore` with all that it has begun, as soon as it says something."""
    with subprocess.Popen(
        ["make", "restore", "YES=1"],
        cwd=stack.folder,
        env={**os.environ, **stack.environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    ) as program:
        assert program.stdout
        said = b""
        while at.encode() not in said:
            said += (one := program.stdout.read(1))
            assert one, said.decode()
        os.killpg(program.pid, signal.SIGKILL)
    labels = {"project": stack.project, "oneoff": "True"}
    filters = [
        f"--filter=label=com.docker.compose.{name}={value}" for name, value in labels.items()
    ]
    for container in docker("ps", "--quiet", *filters).split():
        docker("rm", "--force", container)
