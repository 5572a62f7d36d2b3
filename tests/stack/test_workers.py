"""Services that the user adds: a queue, and workers that a deploy takes along."""

import re
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest
import requests

from tests.stack.stack import HERE, REPOSITORY, Stack, copy_of_repository, docker, poll, running

VALKEY = "berth-test-valkey"
WEB = "berth-test-web"
TASKS = 10_000
AT_A_TIME = 100
# What there must never be two of.
JOBS = """\
  jobs:
    extends: {file: app.yaml, service: jobs}
    environment:
      JOBS: |
        # minute hour day month weekday command
        * * * * * test $$PGDATABASE = berth
        * * * * * exit 3
        0 3 1 * mon-tue exit 4
"""
# As often as a test has time for, and each for longer than that.
OFTEN = """
from apscheduler.triggers.interval import IntervalTrigger
from _berth import jobs
from contextlib import suppress
from functools import partial
from pathlib import Path
job = "* * * * * mkdir /tmp/one && sleep .5 && rmdir /tmp/one"
jobs.parse = lambda _: {job: IntervalTrigger(seconds=.2)}
jobs.FILE, jobs.METRICS_PORT = Path("/tmp/jobs.json"), 9001
jobs.main()
"""


def example(page: str, image: str, ours: str) -> str:
    """Return the Compose file of a page, with an image that can be had here."""
    text = (REPOSITORY / "docs" / page).read_text()
    found = re.search(r"```yaml\n(services:\n.*?)```", text, re.DOTALL)
    assert found
    file, count = re.subn(f"image: {image}.*", f"image: {ours}", found[1])
    assert count == 1
    return file


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The example of the documentation, with an app whose code may be changed."""
    scratch = tmp_path_factory.mktemp("workers")
    docker("build", "--quiet", f"--tag={VALKEY}", f"{HERE}/valkey")
    folder = copy_of_repository(scratch)
    shutil.copytree(HERE / "shop", scratch / "shop")
    docker("build", "--quiet", f"--tag={WEB}", f"{HERE}/web")
    (folder / "dist").mkdir(mode=0o755)
    (folder / "dist/index.html").write_text("<title>Shop</title>")
    workers = example("workers-and-jobs.md", "valkey/", VALKEY)
    jobs = workers.replace("services:\n", f"services:\n{JOBS}\n")
    (folder / "compose.override.yaml").write_text(jobs)
    web = example("front-end.md", "caddy:", WEB).replace("(api|", "(api|tasks|")
    (folder / "compose.web.yaml").write_text(web)
    with running(
        "berth-test-workers",
        scale=1,
        folder=folder,
        APP_DIR="../shop",
        COMPOSE_FILE="compose.yaml:compose.override.yaml:compose.web.yaml",
        MIGRATE="python schema.py",
        API_REPLICAS="1",
        API_MEMORY="128m",
        SURGE="2",
    ) as stack:
        yield stack


def versions(stack: Stack) -> dict[str, set[str]]:
    """Return the images that each service of the app runs."""
    services = ("api", "worker", "jobs")
    return {service: {one["Image"] for one in stack.containers(service)} for service in services}


def is_whole(stack: Stack) -> bool:
    """Whether everything runs one version."""
    counts = [len(stack.containers(service)) for service in ("api", "worker", "jobs")]
    return counts == [1, 2, 1] and len(set.union(*versions(stack).values())) == 1


def shop(stack: Stack) -> Path:
    """Return the folder of the app."""
    return stack.folder.parent / "shop"


def change_code(stack: Stack) -> None:
    """Write code that nobody has deployed yet."""
    (shop(stack) / "changed.py").write_text(f"# {time.time_ns()}\n")


def done(stack: Stack) -> int:
    """Return how many tasks were done, each counted once."""
    query = "--command=SELECT count(DISTINCT number) FROM done"
    psql = ("psql", "--dbname=berth", "--tuples-only", "--no-align", query)
    return int(stack.compose("exec", "-T", "db", *psql))


def post(session: requests.Session, path: str) -> bool:
    """Whether a POST is answered well."""
    with suppress(requests.RequestException):
        return session.post(path, timeout=10).ok
    return False


@pytest.fixture(scope="module")
def finish(stack: Stack) -> Iterator[Callable[[], None]]:
    """Have the app put tasks into its queue, over many tests; what is called has it end that."""
    hurry = threading.Event()
    enqueued = []

    def enqueue() -> None:
        with stack.session() as session:
            for first in range(0, TASKS, AT_A_TIME):
                path = stack.url(f"/tasks?first={first}&count={AT_A_TIME}")
                poll("room in the queue", partial(post, session, path))
                enqueued.append(first)
                hurry.wait(1)

    thread = threading.Thread(target=enqueue)

    def finish() -> None:
        hurry.set()
        thread.join()
        assert len(enqueued) * AT_A_TIME == TASKS

    thread.start()
    try:
        yield finish
    finally:
        hurry.set()
        thread.join()


def test_deploy_takes_workers_along(stack: Stack, finish: object) -> None:  # noqa: ARG001
    """Some beside the old ones; what must not run twice, only after them."""
    for _ in range(2):
        old = versions(stack)
        change_code(stack)
        stack.run("make", "deploy")
        assert is_whole(stack)
        assert not old["api"] & versions(stack)["worker"]
        # Its name was free again before it was made; what rolls gets the next one.
        (jobs,) = stack.containers("jobs")
        assert jobs["Name"].endswith("-jobs-1")


def test_worker_that_crashes_ends_the_deploy(stack: Stack) -> None:
    """The replicas, which had been replaced by then, go back as well."""
    before, kept = versions(stack), docker("image", "ls", "--quiet", f"{stack.project}-api")
    file = shop(stack) / "worker.py"
    good = file.read_text()
    file.write_text(f"{good}\nimport sys\nif 'arq' in sys.argv[0]: sys.exit('no such queue')\n")
    try:
        done = stack.run("make", "deploy", check=False)
    finally:
        file.write_text(good)
    assert done.returncode != 0
    assert "no such queue" in done.stderr
    assert "goes on serving" in done.stderr
    assert versions(stack) == before
    assert is_whole(stack)
    assert docker("image", "ls", "--quiet", f"{stack.project}-api") == kept


def test_rollback_takes_workers_back(stack: Stack) -> None:
    """And what else runs the app's image."""
    before = versions(stack)
    stack.run("make", "rollback")
    assert is_whole(stack)
    assert not before["api"] & versions(stack)["worker"]


def test_no_task_was_lost(stack: Stack, finish: Callable[[], None]) -> None:
    """By three deploys, a rollback and a crash: what a worker had begun, another does again."""
    stack.inside(stack.containers("worker")[0]["Id"], "kill -KILL -- -1")
    finish()
    poll("all tasks", lambda: done(stack) == TASKS, seconds=60)


def test_front_end_is_served_beside_the_api(stack: Stack) -> None:
    """With Berth's headers; what is not its own goes to the app, and it is closed with that."""
    page = stack.get("/")
    assert page.text == "<title>Shop</title>"
    assert page.headers["X-Content-Type-Options"] == "nosniff"
    assert stack.get("/nothing.js").status_code == 404
    assert stack.get("/openapi.json").json()["openapi"]
    stack.run("make", "maintenance", "ON=1")
    assert stack.get("/").status_code == 503
    stack.run("make", "maintenance", "OFF=1")


def test_doctor_names_workers_that_are_not_as_they_should_be(stack: Stack) -> None:
    """One of another version, one that does not run."""
    assert stack.doctor()["version"]["level"] == "good"
    current = f"{stack.project}-api:current"
    serving = docker("image", "inspect", "--format={{.Id}}", current)
    tags = docker("image", "ls", "--format={{.Tag}}", "--no-trunc", f"{stack.project}-api").split()
    other = f"{stack.project}-api:{max(set(tags) - {'current'})}"
    docker("tag", other, current)
    stack.compose("up", "--detach", "--no-deps", "jobs")
    docker("tag", serving, current)
    found = stack.doctor()["version"]
    assert found["level"] == "bad"
    assert "jobs-1 runs another version than the replicas" in found["says"]
    stack.compose("up", "--detach", "--no-deps", "jobs")
    assert is_whole(stack)
    stack.compose("stop", "jobs")
    assert "jobs is stopped" in stack.doctor()["services"]["says"]


def test_changed_settings_of_a_worker_are_rolled_out_by_a_start(stack: Stack) -> None:
    """And what was stopped starts again; replicas are left alone."""
    replicas = [one["Id"] for one in stack.containers("api")]
    file = stack.folder / "compose.override.yaml"
    file.write_text(file.read_text().replace("grace_period: 30s", "grace_period: 31s"))
    stack.run("make", "up")
    assert {one["Config"]["StopTimeout"] for one in stack.containers("worker")} == {31}
    assert [one["Id"] for one in stack.containers("api")] == replicas
    assert is_whole(stack)


def test_job_never_runs_twice_at_once_and_ends_before_its_container_does(stack: Stack) -> None:
    """However often it is due."""
    (jobs,) = stack.containers("jobs")
    command = ("timeout", "--foreground", "3", "python", "-c", OFTEN)
    said = docker("exec", "--workdir=/tmp", jobs["Id"], "sh", "-c", '"$@" || true', "sh", *command)
    assert said.count("ended well") == said.count("begins") >= 3
    assert "failed" not in said


def test_doctor_says_how_jobs_went(stack: Stack) -> None:
    """Across a replacement of their container, and until they go well."""
    poll("the failure", lambda: stack.doctor()["jobs"]["level"] == "bad", seconds=70)
    found = stack.doctor()["jobs"]
    assert "* * * * * exit 3 failed with exit code 3, begun 2" in found["says"]
    (jobs,) = stack.containers("jobs")
    metrics = (
        "import urllib.request as r; print(r.urlopen('http://localhost:9000').read().decode())"
    )
    told = docker("exec", jobs["Id"], "python", "-c", metrics)
    succeeded = 'last_success_timestamp_seconds{job_line="* * * * * test $PGDATABASE = berth"} 1.'
    assert succeeded in told
    assert 'berth_job_failed{job_line="* * * * * exit 3"} 1.0' in told
    assert 'berth_job_failed{job_line="0 3 1 * mon-tue exit 4"} 0.0' in told
