"""Maintenance keeps visitors out, politely, until it is ended; and loses nobody's request."""

import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests

from tests.stack.inside import attack
from tests.stack.stack import Stack, docker, poll

OK = requests.codes.ok
OUT = requests.codes.service_unavailable


def make(stack: Stack, **variables: str) -> str:
    """Return what `make maintenance` says."""
    settings = [f"{name}={value}" for name, value in variables.items()]
    done = stack.run("make", "--silent", "maintenance", *settings, check=False)
    return (done.stdout + done.stderr).strip()


@pytest.fixture
def site(stack: Stack) -> Iterator[Stack]:
    """A stack whose maintenance ends with the test."""
    yield stack
    make(stack, OFF="1")
    poll("visitors let in again", lambda: stack.answers("/items"))


def ask(stack: Stack, accept: str = "*/*", method: str = "GET") -> requests.Response:
    """Send a request for a page of the app."""
    with stack.session() as session:
        headers = {"Accept": accept}
        return session.request(method, stack.url("/items"), headers=headers, data="{", timeout=10)


@contextmanager
def visitors(stack: Stack) -> Iterator[Counter[object]]:
    """Have some ask all the time, half of them over fresh connections; counts their answers."""
    answers: Counter[object] = Counter()
    done = threading.Event()

    def visit(*, keeps: bool) -> None:
        session = stack.session()
        while not done.is_set():
            try:
                answers[session.get(stack.url("/items"), timeout=10).status_code] += 1
            except requests.RequestException as error:
                answers[type(error).__name__] += 1
            if not keeps:
                session.close()
                session = stack.session()
        session.close()

    with ThreadPoolExecutor(4) as pool:
        threads = [pool.submit(visit, keeps=number % 2 == 0) for number in range(4)]
        try:
            yield answers
        finally:
            done.set()
    assert [one.exception() for one in threads] == [None] * 4


def test_visitors_are_told_when_to_come_back(site: Stack, tmp_path: Path) -> None:
    """503 to all, with a page for browsers: the plain one, or that of the user."""
    said = make(site, ON="1")
    assert said.startswith(f"https://{site.domain}:{site.https_port} answers 503;"), said
    page = ask(site, "text/html,application/xhtml+xml,*/*;q=0.8")
    assert page.status_code == OUT
    assert page.headers["Content-Type"] == "text/html; charset=utf-8"
    assert "Back soon" in page.text
    for answer in (page, ask(site), ask(site, method="POST")):
        assert answer.status_code == OUT
        assert answer.headers["Retry-After"] == "120"
        assert answer.headers["Cache-Control"] == "no-store"
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert ask(site).json() == {"detail": "under maintenance"}
    # What watches the app itself sees it as it is.
    assert [site.get(path).status_code for path in ("/livez", "/readyz", "/version")] == [OK] * 3
    own = tmp_path / "own.html"
    own.write_text("<h1>Nous déménageons</h1>")
    make(site, ON="1", MAINTENANCE_PAGE=str(own))
    poll("the user's page", lambda: ask(site, "text/html").text == own.read_text())
    assert make(site, OFF="1") == "maintenance is off"
    poll("visitors let in", lambda: ask(site).status_code == OK)


def test_switching_it_loses_no_request(site: Stack) -> None:
    """Whoever is being served is served to the end; whoever comes gets one answer or the other."""
    with visitors(site) as answers:
        poll("visitors", lambda: answers[OK] > 50)
        assert "answers 503" in make(site, ON="1")
        poll("visitors kept out", lambda: answers[OUT] > 50)
        let_in = answers[OK]
        # Another in its place: nobody slips through.
        assert "answers 503, but to 192.0.2.1;" in make(site, ON="1", ALLOW="192.0.2.1")
        assert answers[OK] <= let_in + 4
        make(site, OFF="1")
        poll("visitors let in again", lambda: answers[OK] > let_in + 50)
    assert set(answers) == {OK, OUT}


def test_named_addresses_pass_and_nobody_can_pretend(site: Stack) -> None:
    """By where a connection comes from, whatever its headers say."""
    make(site, ON="1", ALLOW="127.0.0.1 2001:db8::1")
    curl = ("curl", "--silent", "--insecure", "--output=/dev/null", "--write-out=%{http_code}")
    url = f"https://{site.domain}/items"
    pretends = "--header=X-Forwarded-For: 192.0.2.1"
    resolve = f"--resolve={site.domain}:443:127.0.0.1"
    poll("the named one", lambda: attack(site, *curl, resolve, url).stdout == "200")
    make(site, ON="1", ALLOW="192.0.2.1")
    poll("it no more", lambda: attack(site, *curl, resolve, pretends, url).stdout == "503")


def test_it_stays_on_until_it_is_ended(site: Stack) -> None:
    """Over restarts of Traefik and of itself, and what Compose and `make up` start; and is seen."""
    make(site, ON="1")
    (own,) = site.containers("maintenance")
    (traefik,) = site.containers("traefik")
    docker("restart", traefik["Id"], own["Id"])
    site.compose("up", "--detach", "--wait", "--no-recreate", "--scale=api=4")
    assert "answers from 4 replicas" in site.run("make", "up", "API_REPLICAS=4").stdout
    assert ask(site).status_code == OUT
    found = site.doctor()["maintenance"]
    assert found["level"] == "warning"
    assert found["says"].startswith("maintenance is on since 20")
    assert make(site).startswith("maintenance is on since 20")
    assert "maintenance is on since 20" in site.run("make", "status", check=False).stdout
    make(site, OFF="1")
    assert site.doctor()["maintenance"]["says"] == "off"


@pytest.mark.parametrize(
    ("variables", "says"),
    [
        ({"ON": "1", "ALLOW": "example.org"}, "ALLOW=example.org: addresses, with commas between"),
        ({"ALLOW": "192.0.2.1"}, "ALLOW=192.0.2.1: give ON=1 as well"),
        ({"ON": "1", "OFF": "1"}, "ON and OFF are both given: one of them, please"),
        (
            {"ON": "1", "MAINTENANCE_PAGE": "/nowhere.html"},
            "MAINTENANCE_PAGE=/nowhere.html: there is no such file",
        ),
    ],
)
def test_what_cannot_work_is_refused(stack: Stack, variables: dict[str, str], says: str) -> None:
    """In one sentence, and visitors go on being served."""
    assert make(stack, **variables).splitlines()[0].startswith(f"berth: {says}")
    assert stack.answers("/items")
    assert stack.containers("maintenance", everything=True) == []
