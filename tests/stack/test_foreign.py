"""Apps in three styles that know nothing of Berth, on a whole stack, while requests go on."""

import shutil
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from threading import Semaphore

import pytest
import requests
from pip._internal.models.index import PyPI
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from tests.image.test_build import uv
from tests.ports import free_port
from tests.stack.events import all_answer, harm, settle
from tests.stack.load import Load, assert_stored_once, steady_load
from tests.stack.stack import REPOSITORY, Stack, docker, poll, running_with_ca
from tests.stack.test_dev import developing
from tests.stack.test_doctor import OF_THE_MACHINE

RATE = 30
# POSTs that two replicas may have in hand when they are harmed, or are sent before that is noticed.
IN_FLIGHT = 30
RESPONSE_SECONDS = 10
SHUTDOWN_SECONDS = 5
# The apps give up after 3 s, each wait for a connection and each command.
AWAY_SECONDS = {"stop": 2, "pause": 5}
SLOWEST_SECONDS = 9.5
KEY = "only-for-this-test"


@dataclass(frozen=True)
class Style:
    """A way to write an app.

    Attributes:
        lock: What its author does before it is deployed.
        version: Its file that tests change.
        scheme: How its driver wants DATABASE_URL to begin; empty if it has no database.
        entrypoint: APP, if the app is not found without.
    """

    lock: Callable[[Path], None]
    version: str
    scheme: str = ""
    entrypoint: str = ""


def lock_by_uv(app: Path) -> None:
    uv(app, "lock")


def lock_by_poetry(app: Path) -> None:
    with (app / "pyproject.toml").open("a") as file:
        file.write(f'[[tool.poetry.source]]\nname = "pip"\nurl = "{PyPI.simple_url}"\n')
    tool = ("tool", "run", "--from=poetry", f"--with-requirements={REPOSITORY}/image/poetry.txt")
    uv(app, *tool, "poetry", "lock")


STYLES = {
    "threads": Style(lock_by_uv, "src/shop/version.py", "postgresql+psycopg"),
    "factory": Style(
        lock_by_poetry, "store/version.py", "postgresql+asyncpg", "store.app:create_app()"
    ),
    "pages": Style(lambda _: None, "version.py"),
}


@pytest.fixture(scope="module", params=STYLES)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def style(name: str) -> Style:
    return STYLES[name]


@pytest.fixture(scope="module")
def app(name: str, style: Style, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the app, in a repository of its own."""
    source = REPOSITORY / "tests/foreign" / name
    app = tmp_path_factory.mktemp(name) / name
    shutil.copytree(source, app, ignore=shutil.ignore_patterns("__pycache__"))
    style.lock(app)
    return app


@pytest.fixture(scope="module")
def stack(
    name: str, style: Style, app: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stack]:
    """Two replicas of the app; a test leaves as many."""
    scratch = tmp_path_factory.mktemp(f"{name}-stack")
    (scratch / "app.env").write_text("ALLOWED_HOSTS=berth.test\n")
    (scratch / "secrets").mkdir()
    (scratch / "secrets/API_KEY").write_text(KEY)
    with running_with_ca(
        f"berth-test-{name}",
        scratch,
        scale=2,
        APP_DIR=str(app),
        APP_ENV=str(scratch / "app.env"),
        APP_SECRETS=str(scratch / "secrets"),
        RESPONSE_SECONDS=f"{RESPONSE_SECONDS}",
        SHUTDOWN_SECONDS=f"{SHUTDOWN_SECONDS}",
        DATABASE_SCHEME=style.scheme,
        APP=style.entrypoint,
    ) as stack:
        stack.own_headers["X-API-Key"] = KEY
        yield stack


@contextmanager
def requests_go_on(stack: Stack, style: Style) -> Iterator[Load]:
    """Have them, and look at the end whether the database tells the same story."""
    with steady_load(stack, rate=RATE) as load:
        try:
            yield load
            settle(1)
        finally:
            print(load.why())
    if style.scheme:
        assert_stored_once(stack, load)


def metrics(stack: Stack) -> str:
    """Return what all replicas tell Prometheus."""
    ask = "exec 3<>/dev/tcp/127.0.0.1/9000; printf 'GET /metrics HTTP/1.0\r\n\r\n' >&3; cat <&3"
    return "".join(docker("exec", one, "bash", "-c", ask) for one in stack.healthy())


def talk(stack: Stack, answered: Semaphore) -> int:
    """Talk over a WebSocket until it is closed; return the code."""
    trust = ssl.create_default_context(cafile=str(stack.root))
    raw = socket.create_connection(("127.0.0.1", stack.https_port))
    with connect(f"wss://{stack.domain}/echo", sock=raw, ssl=trust) as websocket:
        try:
            for number in count():
                websocket.send(f"{number}")
                assert websocket.recv(timeout=10) == f"{number}"
                if number == 0:
                    answered.release()
                time.sleep(0.1)
        except ConnectionClosed as end:
            return end.rcvd.code if end.rcvd else 0
    raise AssertionError


def listen(stack: Stack, answered: Semaphore) -> int:
    """Listen to events until they end; return how many came."""
    events = 0
    with (
        stack.session() as session,
        session.get(stack.url("/events"), stream=True, timeout=10) as answer,
        suppress(requests.exceptions.ChunkedEncodingError),
    ):
        for line in answer.iter_lines():
            assert line in (b"", b"data: %d" % events)
            if line == b"data: 0":
                answered.release()
            events += bool(line)
    return events


@contextmanager
def connections_that_end(stack: Stack) -> Iterator[None]:
    """Have WebSockets and streams of events open while their replicas go."""
    answered = Semaphore(0)
    asked = time.monotonic()
    with ThreadPoolExecutor() as clients:
        talks = [clients.submit(talk, stack, answered) for _ in range(4)]
        events = [clients.submit(listen, stack, answered) for _ in range(2)]
        for _ in (*talks, *events):
            assert answered.acquire(timeout=30), "a connection is not open after 30 s"
        print(f"open after {time.monotonic() - asked:.1f} s")
        yield
        assert [one.result(timeout=30) for one in talks] == [1012] * len(talks)
        # One every 0.2 s, until long after the deploy began.
        assert all(one.result(timeout=30) > 5 * SHUTDOWN_SECONDS for one in events)


def is_version(stack: Stack, wanted: str) -> bool:
    """Whether a version of the app answers, by its own title."""
    try:
        return f' {wanted}"' in stack.get("/openapi.json").text
    except requests.RequestException:
        return False


def test_serves_within_berths_bounds(stack: Stack) -> None:
    """Its own pages as they are, 413 for what is too large, and metrics by the route's template."""
    with stack.session() as session:
        made = session.post(stack.url("/items"), json={"name": "first"}, timeout=10)
        assert made.status_code == 201
        one = session.get(stack.url(f"/items/{made.json()['id']}"), timeout=10)
        docs = session.get(stack.url("/docs"), timeout=10)
        assert (one.status_code, docs.status_code) == (200, 200)
        assert "Content-Security-Policy" not in docs.headers
        large = bytes(2**20 + 1)
        for body in (large, iter([large[: 2**19], large[2**19 :]])):
            answer = session.post(stack.url("/items"), data=body, timeout=10)
            assert answer.status_code == 413
    told = metrics(stack)
    assert 'http_route="/items/{item_id}"' in told
    assert made.json()["id"] not in told


def test_doctor_sees_what_is_well_and_what_is_not(stack: Stack) -> None:
    """Replicas that fail most of what they are asked are not well, however ready."""
    for check, one in stack.doctor().items():
        assert one["level"] == "good" or check in OF_THE_MACHINE, one
    with stack.session() as session:
        for _ in range(40):
            assert session.get(stack.url("/bug"), timeout=10).status_code == 500

    def found() -> dict[str, str]:
        return stack.doctor()["answers"]

    poll("a finding", lambda: found()["level"] == "bad")
    assert "is not well: " in found()["says"]
    assert "docker compose logs api" in found()["way_out"]


def test_scaling_killing_and_freezing_lose_at_most_what_was_in_flight(
    stack: Stack, style: Style
) -> None:
    """One replica is killed, then one frozen."""
    with requests_go_on(stack, style) as load:
        stack.up(scale=3)
        all_answer(stack, 3)
        load.mark()
        for signal in ("KILL", "STOP"):
            harm(f"kill -{signal} -- -1")(stack, load.mark)
        stack.up(scale=2)
    assert load.lost("GET") == []
    assert len(load.lost("POST")) <= IN_FLIGHT
    assert all(one.at > load.marks[0] - 0.5 for one in load.lost("POST"))


def test_database_that_is_away_is_503(stack: Stack, style: Style) -> None:
    """Stopped, and silent: an answer all the same, and all as before when it is back.

    Though every connection is a new one then, with a password that was changed under a running app.
    """
    if not style.scheme:
        pytest.skip("it has none")
    with requests_go_on(stack, style) as load:
        stack.run("make", "rotate-secrets", "SURGE=2")
        for away, back in (("stop", "start"), ("pause", "unpause")):
            load.mark()
            (db,) = stack.healthy("db")
            # The kernel of a busy machine now and then refuses to freeze.
            poll(away, lambda: stack.run("docker", away, db, check=False).returncode == 0)  # noqa: B023
            try:
                settle(AWAY_SECONDS[away])
            finally:
                docker(back, db)
            poll("the database", lambda: stack.healthy("db"))
            settle(1)
    print([f"{one.seconds:.1f} {one.result}" for one in load.outcomes if one.seconds > 1.5][::10])
    assert load.why()
    assert all(one.at > load.marks[0] - 0.5 for one in load.outcomes if one.lost)
    with stack.session() as session:
        for number in range(10):
            again = session.post(stack.url("/items"), json={"name": f"again {number}"}, timeout=10)
            assert again.status_code == 201
    assert all(one.refused for one in load.outcomes if one.lost), load.why()
    assert load.slowest < SLOWEST_SECONDS


IMPORT_FAILS = ("No module named 'nowhere_to_be_found'", "so nothing else has changed")
# In a replica: the import before a migration, which would be waited for, has no database.
STARTS_NEVER = "import os, time; time.sleep(3600 * (os.environ['PGPORT'] != '1'))"


def test_deploys_good_versions_alone(stack: Stack, style: Style, app: Path) -> None:
    """One that cannot be imported, and one that never starts, leave the present one serving."""
    file = app / style.version
    good = file.read_text().replace("one", "two")
    file.write_text(good)
    # The same deploy brings workers, and replicas that start anew.
    stack.environment |= {"API_WORKERS": "2", "RECYCLE_REQUESTS": "100"}
    with requests_go_on(stack, style) as load:
        stack.run("make", "deploy", "SURGE=2")
        assert is_version(stack, "two")
        replicas = stack.healthy()
        for code, seconds, sentences in (
            ("import nowhere_to_be_found", 60, IMPORT_FAILS),
            (STARTS_NEVER, 2, ("is not healthy after 2 s", "goes on serving")),
        ):
            file.write_text(f"{good}\n{code}\n")
            patience = f"DEPLOY_SECONDS={seconds}"
            done = stack.run("make", "deploy", "SURGE=2", patience, check=False)
            assert all(sentence in done.stderr for sentence in sentences), done.stderr
            assert done.returncode != 0
            assert is_version(stack, "two")
        file.write_text(good)

        def starts() -> list[int]:
            return [docker("logs", one).count("startup complete") for one in replicas]

        # Of two processes each.
        poll("a replica that starts anew", lambda: max(starts()) > 2, seconds=60)
        poll("both replicas", lambda: stack.healthy() == replicas)
        with nullcontext() if style.scheme else connections_that_end(stack):
            stack.run("make", "rollback", "SURGE=2")
        assert is_version(stack, "one")
    assert load.why() == {}


def test_pages_are_not_touched(stack: Stack, name: str) -> None:
    """A browser would load the stylesheet and run the inline script; an upload arrives."""
    if name != "pages":
        pytest.skip("it has none")
    page = stack.get("/")
    assert "<script>" in page.text
    assert "Content-Security-Policy" not in page.headers
    assert stack.get("/static/style.css").headers["Content-Type"].startswith("text/css")
    with stack.session() as session:
        file = {"file": ("large.bin", bytes(500_000))}
        assert session.post(stack.url("/upload"), files=file, timeout=10).json() == 500_000


def test_middleware_refuses_others_and_not_the_probes(stack: Stack, name: str) -> None:
    """Its limit on requests is met by who brings no key, and its redirect to HTTPS by nobody."""
    if name != "factory":
        pytest.skip("it has none")
    with stack.session() as session:
        del session.headers["X-API-Key"]
        told = {session.get(stack.url("/sleep/0"), timeout=10).status_code for _ in range(60)}
        assert told == {200, 429}
        for path in ("/readyz", "/livez", "/version"):
            asked = {session.get(stack.url(path), timeout=10).status_code for _ in range(60)}
            assert asked == {200}
    assert len(stack.healthy()) == 2


def test_development_shows_what_is_saved(
    stack: Stack, name: str, app: Path, tmp_path: Path
) -> None:
    """Also of a src layout that is installed in the image; last, since it takes the stack over."""
    if name != "threads":
        pytest.skip("one is enough")
    stack.environment["COMPOSE_FILE"] += ":compose.dev.yaml"
    stack.environment["DB_PORT"] = str(free_port())
    with developing(stack, tmp_path / "log"):
        poll("development", lambda: is_version(stack, "two"), seconds=60)
        file = app / STYLES[name].version
        file.write_text(file.read_text().replace("two", "saved"))
        poll("the change", lambda: is_version(stack, "saved"))
