"""Two stacks share one pair of ports, and neither notices what the other one does."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests

from tests.stack import ipv6
from tests.stack.events import settle
from tests.stack.load import assert_stored_once, steady_load
from tests.stack.stack import DOMAIN, HERE, Stack, copy_of_repository, poll, running_with_ca
from tests.stack.test_deploy import change_code
from tests.stack.test_names_and_proxies import called, is_signed, subjects

STAGING = "staging.test"
MOVED = f"www.{STAGING}"
# What is the same for both, since it is the test's.
SHARED = {
    *("ACME_CA_SERVER", "ACME_CA_CERTIFICATE", "ACME_EMAIL", "FAULTS_FILE"),
    *("RATE_LIMIT", "CLIENT_IN_FLIGHT", "API_REPLICAS"),
}
OK = requests.codes.ok
RATE = 80


@pytest.fixture(scope="module")
def front(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The stack that has the ports."""
    scratch = tmp_path_factory.mktemp("front")
    with running_with_ca(
        "berth-test-front",
        scratch,
        scale=1,
        folder=copy_of_repository(scratch),
        overlays=["front", "faults", "young"],
        API_REPLICAS="1",
        BIND_ADDRESS_IPV6=ipv6.everywhere(),
    ) as stack:
        yield stack


@pytest.fixture(scope="module")
def staging(front: Stack) -> Iterator[Stack]:
    """The one behind it, asked as its users would."""
    overlays = [f"{HERE}/compose.{name}.yaml" for name in ("faults", "young")]
    settings = {
        "COMPOSE_FILE": ":".join(["compose.yaml", "traefik/behind.yaml", *overlays]),
        "BEHIND": front.project,
        "DOMAIN": STAGING,
        "REDIRECT_DOMAINS": MOVED,
    }
    shared = {name: front.environment[name] for name in SHARED}
    stack = Stack("berth-test-staging", shared | settings, front.folder)
    stack.down()
    stack.https_port = front.https_port
    stack.root = front.root
    try:
        stack.run("make", "up")
        poll("its certificates", lambda: all(is_signed(called(stack, x)) for x in (STAGING, MOVED)))
        yield stack
    finally:
        stack.down()


def where(stack: Stack) -> dict[str, str]:
    """Return whom a stack takes its client for, and itself."""
    with stack.session() as session:
        headers = {"X-Forwarded-For": "203.0.113.7"}
        said: dict[str, str] = session.get(stack.url("/where"), headers=headers, timeout=5).json()
    return said


def test_each_stack_answers_for_its_own_names(front: Stack, staging: Stack) -> None:
    """With certificates of its own, and rows of its own."""
    for stack in (front, staging):
        assert stack.get("/items").status_code == OK
        assert subjects(stack.certificate()) == [stack.domain]
    with staging.session() as session:
        made = session.post(staging.url("/items"), json={"name": "staged"}, timeout=5)
    assert made.status_code == requests.codes.created
    assert "staged" in staging.get("/items").text
    assert "staged" not in front.get("/items").text


def test_names_below_the_others_are_passed_on_too(staging: Stack) -> None:
    """To where its own settings say; plain HTTP of every name leads to HTTPS."""
    old = called(staging, MOVED)
    with old.session() as session:
        answer = session.get(old.url("/items"), allow_redirects=False, timeout=5)
    assert answer.headers["Location"] == f"https://{STAGING}/items"
    assert subjects(old.certificate()) == [MOVED]


def test_clients_keep_their_address(front: Stack, staging: Stack) -> None:
    """Behind the other Traefik, too; what they say of it is believed by neither."""
    assert where(staging)["client"] == where(front)["client"]
    assert where(staging)["url"] == f"https://{STAGING}/where"


def test_clients_by_ipv6_keep_their_address(front: Stack, staging: Stack) -> None:
    """Behind the other Traefik, too, and while the one in front is replaced."""
    with ipv6.client(front) as client:
        for stack in (front, staging):
            (answer,) = client.ask(stack, "/where", ipv6.CLIENT)
            assert json.loads(answer.body)["client"] == ipv6.CLIENT
        with client.asking(front, "/where") as answers:
            front.environment["TRAEFIK_THREADS"] = "3"
            front.run("make", "up")
    assert set(answers) == {OK}


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ("BEHIND=nowhere", "BEHIND=nowhere: no stack of this name runs here"),
        (f"DOMAIN={DOMAIN}", f"serves {DOMAIN}; take another one"),
        ("DOMAIN=test", "DOMAIN=test: berth-test-front"),
        ("DOMAINS=other.test", "DOMAINS=other.test: other.test is not below DOMAIN=staging.test"),
        ("DOMAIN=localhost", "give a name of its own as DOMAIN"),
    ],
)
def test_what_cannot_be_passed_on_is_refused(staging: Stack, setting: str, says: str) -> None:
    """In a sentence, and all goes on as it was."""
    done = staging.run("env", setting, "make", "up", check=False)
    assert done.returncode != 0
    assert says in done.stderr
    assert staging.answers()


def test_changes_of_one_lose_no_request_of_the_other(front: Stack, staging: Stack) -> None:
    """Deploys of both, another Traefik in front, and the one behind going away and coming back."""
    change_code(front)  # which is the other one's, too
    with steady_load(front, rate=RATE) as fronts, steady_load(staging, rate=RATE) as stagings:
        with ThreadPoolExecutor() as pool:
            list(pool.map(lambda stack: stack.run("make", "deploy"), (front, staging)))
        front.environment["TRAEFIK_THREADS"] = "2"
        front.run("make", "up")
        settle()
    assert stagings.why() == {}
    assert_stored_once(staging, stagings)
    with steady_load(front, rate=RATE) as more:
        staging.run("make", "down")
        settle()
        staging.run("make", "up")
        poll("the one behind", staging.answers)
        settle()
    assert fronts.why() == {}
    assert more.why() == {}
    for load in (fronts, more):
        assert_stored_once(front, load)


def test_the_doctor_knows_who_has_the_ports(front: Stack, staging: Stack) -> None:
    """That nobody else reaches the ports of the one behind is as it should be."""
    found = staging.doctor()
    assert found["certificate"]["level"] == "good"
    assert found["address"]["says"] == f"DOMAIN={STAGING} behind {front.project}"


def test_the_one_behind_survives_the_other(front: Stack, staging: Stack) -> None:
    """It is reached again once the other one is there again, without a word to it."""
    (before,) = staging.healthy("traefik")
    front.run("make", "down")
    front.run("make", "up")
    poll("the one behind", staging.answers)
    assert staging.healthy("traefik") == [before]
