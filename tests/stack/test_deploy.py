"""A new version, an old one, other settings: brought into service while requests go on."""

import errno
import os
import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from host.compose import parse
from ops import lock
from tests.stack import report
from tests.stack.events import harm, settle
from tests.stack.load import Load, assert_stored_once, steady_load
from tests.stack.stack import Stack, copy_of_repository, docker, poll, running_with_ca
from tests.stack.steps import KILLED, STEPS, TYPED, before

REPLICAS = 2
# Where it does not matter how many are replaced at a time: all at once is quickest, but leaves
# little of a small machine to requests.
AT_ONCE = f"SURGE={REPLICAS}"
LONG_SECONDS = 60
# Of those that a deploy and a start may have, the deploy's.
DEPLOY = STEPS.keys() - {"start"}
# Where old and new replicas stand side by side, Compose before 2.31 takes the new ones away.
SIDE_BY_SIDE = {"move", "drain", "remove"}
IS_OLD_COMPOSE = parse(docker("compose", "version", "--short")) < (2, 31)
needs_new_compose = pytest.mark.skipif(
    IS_OLD_COMPOSE, reason="this Compose loses requests where `up` is typed amid a deploy"
)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Two replicas of a copy of the repository, whose code may be changed."""
    scratch = tmp_path_factory.mktemp("deploy")
    with running_with_ca(
        "berth-test-deploy",
        scratch,
        scale=REPLICAS,
        folder=copy_of_repository(scratch),
        overlays=["faults", "young"],
        API_REPLICAS=str(REPLICAS),
    ) as stack:
        yield stack


@pytest.fixture
def stack(whole: Stack) -> Iterator[Stack]:
    """A whole stack, which the test must leave as whole."""
    if not is_whole(whole):  # a test before this one failed
        whole.up(scale=REPLICAS)
        whole.run("make", "deploy", AT_ONCE)
    yield whole
    assert is_whole(whole)


def is_whole(stack: Stack) -> bool:
    """Whether there are as many replicas as there should be, healthy and of one version."""
    there = stack.containers("api", everything=True)
    return len(there) == len(stack.healthy()) == REPLICAS and len(images(stack)) == 1


def images(stack: Stack) -> set[str]:
    """Return the ids of the images that replicas run."""
    return {replica["Image"] for replica in stack.containers("api")}


def ids(stack: Stack) -> set[str]:
    """Return the ids of the replicas."""
    return {replica["Id"] for replica in stack.containers("api")}


def current(stack: Stack) -> str:
    """Return the id of the image that Compose would start."""
    return docker("image", "inspect", "--format={{.Id}}", f"{stack.project}-api:current")


def tags(stack: Stack) -> list[str]:
    """Return the tags of the app's images, the newest first."""
    listed = docker("image", "ls", "--format={{.Tag}}", f"{stack.project}-api").split()
    return sorted(set(listed) - {"current"}, reverse=True)


def version(stack: Stack) -> str:
    """Return the version that all replicas say they are."""
    with stack.session() as session:
        answers = [session.get(stack.url("/version"), timeout=10).json() for _ in range(12)]
    (only,) = {answer["version"] for answer in answers}
    return str(only)


def change_code(stack: Stack) -> None:
    """Write code that nobody has deployed yet."""
    (stack.folder / "app/changed.py").write_text(f"# {time.time_ns()}\n")


@contextmanager
def never_healthy(stack: Stack) -> Iterator[None]:
    """Break the code for a while."""
    probes = stack.folder / "berth/probes.py"
    good = probes.read_text()
    probes.write_text(good.replace("if self.lifecycle.draining:", "if True:"))
    assert probes.read_text() != good
    try:
        yield
    finally:
        probes.write_text(good)


def write_migration(stack: Stack, *statements: str) -> Path:
    """Write the next migration."""
    versions = stack.folder / "migrations/versions"
    last = max(int(file.name[:4]) for file in versions.glob("[0-9]*.py"))
    file = versions / f"{last + 1:04}_next.py"
    lines = "".join(f"    op.execute({statement!r})\n" for statement in statements)
    file.write_text(
        "from alembic import op\n"
        f"revision, down_revision = '{last + 1:04}', '{last:04}'\n"
        f"def upgrade() -> None:\n{lines}"
    )
    return file


def sql(stack: Stack, statement: str) -> list[str]:
    """Return what the database answers to a statement, one line per row."""
    psql = ("psql", "--dbname=berth", "--tuples-only", "--no-align", f"--command={statement}")
    return stack.compose("exec", "-T", "db", *psql).split()


def start(
    stack: Stack, *command: str, terminal: int = subprocess.DEVNULL, **variables: str
) -> subprocess.Popen[bytes]:
    """Start a command in the stack's folder, and do not wait for it."""
    return subprocess.Popen(
        command,
        cwd=stack.folder,
        env={**os.environ, **stack.environment, **variables},
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
    )


@contextmanager
def nothing_lost(stack: Stack, name: str = "") -> Iterator[Load]:
    """Have requests go on meanwhile, and not one of them fail; a name is for the table."""
    with steady_load(stack) as load:
        load.mark()
        yield load
        settle(1)
    if name:
        report.record(name, "Berth", load)
    assert load.why() == {}
    assert_stored_once(stack, load)


def test_deploying_replaces_every_replica_and_loses_no_request(stack: Stack) -> None:
    """One at a time, as is the default; afterwards all are new, and as many as before."""
    before, old = ids(stack), version(stack)
    change_code(stack)
    with nothing_lost(stack, "deploy of a good image"):
        said = stack.run("make", "deploy").stdout
    assert not before & ids(stack)
    assert version(stack) == tags(stack)[0] != old
    assert f" → {tags(stack)[0]}; no migrations; " in said.splitlines()[-1]


def test_deploying_the_same_tree_does_nothing(stack: Stack) -> None:
    """It says so, and leaves no image behind."""
    stack.run("make", "deploy", AT_ONCE)
    before, kept = ids(stack), tags(stack)
    assert f"unchanged: {REPLICAS} replicas of" in stack.run("make", "deploy").stdout
    assert ids(stack) == before
    assert tags(stack) == kept


def memory(stack: Stack) -> set[int]:
    """Return the memory limits of the replicas, in MiB."""
    return {replica["HostConfig"]["Memory"] >> 20 for replica in stack.containers("api")}


@pytest.mark.parametrize(
    ("command", "megabytes"), [("deploy", 250), ("up", 240)], ids=["deploy", "up"]
)
def test_changed_settings_are_rolled_out(stack: Stack, command: str, megabytes: int) -> None:
    """The same image in new containers; `docker compose up -d` alone would stop them all first."""
    before, image = ids(stack), images(stack)
    stack.environment["API_MEMORY"] = f"{megabytes}m"
    with nothing_lost(stack, f"`make {command}` of changed settings"):
        stack.run("make", command)
    assert not before & ids(stack)
    assert images(stack) == image
    assert memory(stack) == {megabytes}


def test_changed_variables_of_the_app_are_rolled_out(stack: Stack) -> None:
    """Of app.env by `make up`, of secrets by `make deploy` too; the doctor says when they wait."""
    before, image = ids(stack), images(stack)
    (stack.folder / "app.env").write_text("SHOP=1\n")
    found = stack.doctor()["settings"]
    assert found["says"] == "app.env or secrets have changed since the start of api"
    with nothing_lost(stack, "`make up` of a changed app.env"):
        stack.run("make", "up")
    after = ids(stack)
    assert not before & after
    assert images(stack) == image
    # Written once more, as it was.
    (stack.folder / "app.env").write_text("SHOP=1\n")
    assert stack.doctor()["settings"]["level"] == "good"
    stack.run("make", "up")
    assert ids(stack) == after

    (stack.folder / "secrets").mkdir(mode=0o700)
    (stack.folder / "secrets/TOKEN").write_text("hunter2\n")
    stack.compose("up", "--detach")  # copies them, and leaves the replicas as they are
    assert stack.doctor()["settings"]["level"] == "warning"
    stack.run("make", "deploy", AT_ONCE)
    assert not after & ids(stack)
    assert stack.doctor()["settings"]["level"] == "good"
    assert f"unchanged: {REPLICAS} replicas" in stack.run("make", "deploy").stdout


def test_starting_brings_the_server_of_an_updated_berth(stack: Stack) -> None:
    """And never the app's code, which may be half-edited; a rollback leads back to both.

    Traefik does not mind that `git pull` takes a moment.
    """
    before, old, pulled = ids(stack), version(stack), stack.folder / "berth/probes.py"
    routes = stack.folder / "traefik/dynamic/api.yaml"
    text, traefik = routes.read_text(), stack.healthy("traefik")
    server = pulled.read_text()
    (stack.folder / "app/main.py").rename(stack.folder / "app/main.away")
    pulled.write_text(server.replace('says = {"version"', 'says = {"pulled": "yes", "version"'))
    try:
        assert "has the server of another Berth" in stack.doctor()["version"]["says"]
        with nothing_lost(stack, "`make up` after an update of Berth"):
            routes.unlink()
            settle(1)
            routes.write_text(text)
            said = stack.run("make", "up").stdout
        assert re.search(rf"building {tags(stack)[0]}: \S+ with this Berth's server … done", said)
        assert not before & ids(stack)
        assert traefik != stack.healthy("traefik")
        assert version(stack) == tags(stack)[0] != old
        assert stack.get("/version").json()["pulled"] == "yes"
        assert stack.doctor()["version"]["level"] == "good"
        after = ids(stack)
        stack.run("make", "up")
        assert ids(stack) == after
    finally:
        pulled.write_text(server)
        (stack.folder / "app/main.away").rename(stack.folder / "app/main.py")
    stack.run("make", "rollback")
    assert version(stack) == old
    assert "pulled" not in stack.get("/version").json()


def test_server_that_never_becomes_healthy_leaves_the_old_one_serving(stack: Stack) -> None:
    """`make up` says so, and leaves nothing of it behind."""
    before, pointed, kept = ids(stack), current(stack), tags(stack)
    with never_healthy(stack), nothing_lost(stack):
        done = stack.run("make", "up", "DEPLOY_SECONDS=5", check=False)
    assert done.returncode != 0
    assert "is not healthy after 5 s" in done.stderr
    assert "goes on serving" in done.stderr
    assert (ids(stack), current(stack), tags(stack)) == (before, pointed, kept)


def test_version_that_never_becomes_healthy_never_serves(stack: Stack) -> None:
    """The deploy aborts by itself; nothing of the new version stays."""
    before, pointed, kept = ids(stack), current(stack), tags(stack)
    with (
        never_healthy(stack),
        nothing_lost(stack, "deploy whose replicas never become healthy"),
    ):
        done = stack.run("make", "deploy", "DEPLOY_SECONDS=5", check=False)
    assert done.returncode != 0
    assert "is not healthy after 5 s" in done.stderr
    assert "goes on serving" in done.stderr
    assert ids(stack) == before
    assert current(stack) == pointed
    assert tags(stack) == kept


def test_failing_migration_changes_nothing(stack: Stack) -> None:
    """It is rolled back, and no new replica is ever started."""
    before, pointed, kept = ids(stack), current(stack), tags(stack)
    file = write_migration(
        stack, "CREATE TABLE half_done (id int)", "ALTER TABLE nowhere ADD COLUMN x int"
    )
    try:
        with nothing_lost(stack, "deploy whose migration fails"):
            done = stack.run("make", "deploy", check=False)
    finally:
        file.unlink()
    assert done.returncode != 0
    assert 'relation "nowhere" does not exist' in done.stderr
    assert sql(stack, "SELECT to_regclass('half_done')") == []
    assert (ids(stack), current(stack), tags(stack)) == (before, pointed, kept)


def test_migration_that_cannot_have_its_lock_gives_way_to_requests(stack: Stack) -> None:
    """It asks ten times for a second each, and lets requests through in between."""
    before = ids(stack)
    file = write_migration(stack, "ALTER TABLE items ADD COLUMN colour text")
    locked = "BEGIN; LOCK TABLE items IN ACCESS SHARE MODE; SELECT pg_sleep(3600)"
    holder = start(
        stack, "docker", "compose", "exec", "-T", "db", "psql", "berth", f"--command={locked}"
    )
    sessions = (
        "FROM pg_stat_activity WHERE query LIKE '%pg_sleep(3600)' AND pid <> pg_backend_pid()"
    )
    try:
        poll("the lock", lambda: sql(stack, f"SELECT pid {sessions}"))
        with nothing_lost(stack, "deploy whose migration waits on a lock for too long"):
            done = stack.run("make", "deploy", check=False)
    finally:
        sql(stack, f"SELECT pg_terminate_backend(pid) {sessions}")
        holder.wait()
        file.unlink()
    assert done.returncode != 0
    assert "lock timeout" in done.stderr
    assert ids(stack) == before


def test_rolling_back_after_a_migration_keeps_the_newer_schema(stack: Stack) -> None:
    """Nothing is built, no request lost; migrations expand before they contract."""
    old = version(stack)
    write_migration(stack, f"ALTER TABLE items ADD COLUMN expanded_{time.time_ns()} text")
    assert "1 migration (" in stack.run("make", "deploy", AT_ONCE).stdout
    revision = sql(stack, "SELECT version_num FROM alembic_version")
    # As `docker system prune --all` has it: a rebuild, and which one is said.
    image, kept = f"{stack.project}-api:{old}", f"{stack.project}-api:kept"
    docker("tag", image, kept)
    docker("image", "rm", image)
    refused = stack.run("make", "rollback", check=False)
    assert f"berth: the image of {old} is no longer here" in refused.stderr
    docker("tag", kept, image)
    docker("image", "rm", kept)
    with nothing_lost(stack, "rollback, past a migration"):
        stack.run("make", "rollback")
    assert version(stack) == old
    assert sql(stack, "SELECT version_num FROM alembic_version") == revision


def started(stack: Stack, service: str) -> list[tuple[str, str]]:
    """Return which containers of a service run, and since when."""
    return [(one["Id"], one["State"]["StartedAt"]) for one in stack.containers(service)]


def test_starting_restarts_what_has_read_files_that_changed_since(stack: Stack) -> None:
    """Compose mounts them, and sees no difference; nothing else is touched."""
    proxy, others = started(stack, "docker-proxy"), ("traefik", "db", "api")
    before = [started(stack, service) for service in others]
    with (stack.folder / "traefik/docker-proxy.cfg").open("a") as file:
        file.write("# changed\n")
    assert stack.doctor()["settings"]["says"] == "changed since the start of docker-proxy"
    for changed in (True, False):
        said = stack.run("make", "up").stdout
        assert ("restarting docker-proxy, whose files have changed" in said) == changed
    assert started(stack, "docker-proxy") != proxy
    assert [started(stack, service) for service in others] == before
    assert stack.answers()


def test_starting_with_a_setting_that_cannot_work_leaves_the_site_up(stack: Stack) -> None:
    """One sentence, and everything that ran still runs."""
    services = ("traefik", "db", "api", "docker-proxy")
    before = [started(stack, service) for service in services]
    done = stack.run("make", "up", "DOMAIN=https://berth.test", check=False)
    assert done.returncode != 0
    assert "berth: DOMAIN=https://berth.test: give the bare host name" in done.stderr
    assert [started(stack, service) for service in services] == before
    assert stack.answers()


def test_one_change_at_a_time(stack: Stack) -> None:
    """Whoever comes second is told who is at work; the first one can be told to stop."""
    before = ids(stack)
    change_code(stack)
    first = start(stack, "python3", "-m", "ops.deploy")
    poll("the first one's lock", lambda: lock.holder(stack.project))
    for command in ("deploy", "up", "rollback"):
        done = stack.run("python3", "-m", f"ops.{command}", check=False)
        assert done.returncode == 1
        assert done.stderr.startswith("berth: a deploy by ")
        assert f"(process {first.pid})" in done.stderr
    first.terminate()
    assert first.wait(LONG_SECONDS) == 128 + 15
    assert ids(stack) == before


class Terminal:
    """A person at a terminal of their own, who has typed a command."""

    def __init__(self, stack: Stack, *command: str) -> None:
        self._keyboard, screen = os.openpty()
        os.set_blocking(self._keyboard, False)
        self.shown = ""
        self.process = start(stack, "setsid", "--ctty", *command, terminal=screen)
        os.close(screen)

    def look(self) -> str:
        """Return what the screen has shown so far."""
        with suppress(BlockingIOError):
            try:
                while read := os.read(self._keyboard, 4096):
                    self.shown += read.decode()
            except OSError as error:
                if error.errno != errno.EIO:  # everybody at the other end is gone
                    raise
        return self.shown

    def wait_for(self, text: str) -> None:
        """Return once the screen shows a text."""
        poll(f"{text!r} on the screen", lambda: text in self.look(), seconds=LONG_SECONDS)

    def wait(self) -> None:
        """Wait until the command has ended."""
        poll("the end", lambda: (self.look(), self.process.poll())[1] is not None, seconds=60)
        self.look()
        os.close(self._keyboard)

    def interrupt(self) -> None:
        """Press Ctrl-C, and wait until the command has ended."""
        os.write(self._keyboard, b"\x03")
        self.wait()

    def hang_up(self) -> None:
        """Lose the connection, and wait until the command has ended."""
        os.close(self._keyboard)
        self.process.wait(LONG_SECONDS)


@pytest.mark.parametrize("goodbye", [Terminal.interrupt, Terminal.hang_up])
def test_deploy_that_is_broken_off_leaves_a_whole_service(stack: Stack, goodbye: object) -> None:
    """By Ctrl-C, or by a terminal that is gone; the next deploy finishes it."""
    change_code(stack)
    with nothing_lost(stack):
        terminal = Terminal(stack, "make", "deploy")
        terminal.wait_for("draining")
        assert callable(goodbye)
        goodbye(terminal)
        assert len(stack.healthy()) == len(stack.containers("api")) == REPLICAS
        assert len(images(stack)) == 2
    if goodbye == Terminal.interrupt:
        assert f"1 of {REPLICAS} replicas are replaced and all of them serve" in terminal.shown
        assert "`make deploy` finishes what is left" in terminal.shown
    stack.run("make", "deploy", AT_ONCE)
    assert images(stack) == {current(stack)}


def test_version_that_crashes_under_way_gives_way_to_the_one_before(stack: Stack) -> None:
    """Though half of the replicas had been replaced by then."""
    old, pointed, kept = images(stack), current(stack), tags(stack)
    change_code(stack)
    terminal = Terminal(stack, "make", "deploy")
    terminal.wait_for("draining")
    new = next(one["Id"] for one in stack.containers("api") if one["Image"] not in old)
    stack.inside(new, "kill -KILL -- -1")
    terminal.wait()
    assert terminal.process.returncode != 0
    assert "going back to" in terminal.shown
    assert "goes on serving" in terminal.shown
    assert (images(stack), current(stack), tags(stack)) == (old, pointed, kept)


def kill_deploy(stack: Stack, surge: int) -> None:
    """Deploy, and kill that as soon as there are more replicas than before."""
    killed = start(stack, "python3", "-m", "ops.deploy", SURGE=str(surge))
    poll("new replicas", lambda: len(ids(stack)) == REPLICAS + surge, seconds=LONG_SECONDS)
    killed.kill()
    killed.wait()


def test_deploy_that_is_killed_is_finished_by_the_next(stack: Stack) -> None:
    """The number of replicas is what it was, however many were left."""
    change_code(stack)
    with nothing_lost(stack):
        kill_deploy(stack, surge=REPLICAS)
        poll("all new replicas", lambda: len(stack.healthy()) == 2 * REPLICAS)
        stack.run("make", "deploy")
    assert images(stack) == {current(stack)}


def test_deploy_that_is_killed_leaves_nothing_bad_behind(stack: Stack) -> None:
    """New replicas that nobody has seen healthy are the first to go, not those that serve."""
    with nothing_lost(stack):
        with never_healthy(stack):
            kill_deploy(stack, surge=1)
        stack.run("make", "deploy")
    assert images(stack) == {current(stack)}


@pytest.mark.parametrize(
    "steps",
    [
        pytest.param(DEPLOY - (SIDE_BY_SIDE if IS_OLD_COMPOSE else {"move"}), id="at each step"),
        pytest.param({"move"}, id="before it moves", marks=needs_new_compose),
    ],
)
def test_compose_up_during_a_deploy_starts_nothing_unproven(
    stack: Stack, tmp_path: Path, steps: set[str]
) -> None:
    """Whenever it is typed: what runs is what had been proven by then, and requests go on."""
    old = images(stack)
    change_code(stack)
    with nothing_lost(stack):
        variables = [f"{name}={value}" for name, value in before(steps, TYPED, tmp_path).items()]
        done = stack.run("env", *variables, "make", "deploy", AT_ONCE, check=False)
        assert {step for step in STEPS if (tmp_path / step).exists()} == steps
        poll("a whole service", lambda: is_whole(stack))
    # A deploy whose new replicas were taken away has not come into service, and says so.
    assert (images(stack) == old) == (done.returncode != 0) == (steps == {"move"}), done.stderr
    assert images(stack) == {current(stack)}
    assert_compose_changes_nothing(stack)


@needs_new_compose
@pytest.mark.parametrize("step", ["move", "drain"])
def test_compose_up_after_a_deploy_that_was_killed_starts_nothing_unproven(
    stack: Stack, tmp_path: Path, step: str
) -> None:
    """Until all new replicas had been healthy, it brings back the old ones."""
    old = images(stack)
    change_code(stack)
    with nothing_lost(stack):
        variables = before([step], KILLED, tmp_path) | {"SURGE": str(REPLICAS)}
        command = [f"{name}={value}" for name, value in variables.items()]
        done = stack.run("env", *command, "python3", "-m", "ops.deploy", check=False)
        assert done.returncode == -9
        stack.compose("up", "--detach")
        poll("a whole service", lambda: is_whole(stack))
    assert (images(stack) == old) == (step == "move")
    assert images(stack) == {current(stack)}


def assert_compose_changes_nothing(stack: Stack) -> None:
    """To Compose, replicas are as it would have started them itself."""
    as_deployed = ids(stack)
    stack.compose("up", "--detach")
    assert ids(stack) == as_deployed
    assert is_whole(stack)


def test_crash_loop_backs_off_and_is_named(stack: Stack, tmp_path: Path) -> None:
    """Each restart waits twice as long as the one before it; the doctor quotes the last words."""
    ends = tmp_path / "faults.py"
    ends.write_text("raise SystemExit('a setting is missing')")
    before = ids(stack)
    began = time.monotonic()
    beside = ("--no-deps", "--no-recreate", f"--scale=api={REPLICAS + 1}")
    stack.run("env", f"FAULTS_FILE={ends}", "docker", "compose", "up", "-d", *beside, "api")
    try:
        (looping,) = (c for c in stack.containers("api", everything=True) if c["Id"] not in before)

        def restarts() -> int:
            return int(docker("inspect", "--format={{.RestartCount}}", looping["Id"]))

        poll("six restarts", lambda: restarts() >= 6)
        assert time.monotonic() - began > sum(0.1 * 2**n for n in range(5))
        poll("its words", lambda: "a setting is missing" in stack.doctor()["restarts"]["says"])
        found = stack.doctor()["restarts"]
        assert found["level"] == "bad"
        assert f"{looping['Name'].lstrip('/')} crashes again and again" in found["says"]
        assert stack.run("make", "doctor", check=False).returncode != 0
        assert stack.answers()
    finally:
        docker("rm", "--force", looping["Id"])


def test_doctor_names_a_replica_that_ran_out_of_memory(stack: Stack) -> None:
    """And the variable that would give it more."""
    victim = docker("inspect", "--format={{slice .Name 1}}", stack.healthy()[0])
    harm("/memory")(stack, lambda: None)
    found = stack.doctor()["restarts"]
    assert found["level"] == "warning"
    assert f"{victim} out of memory (API_MEMORY)" in found["says"]
